//! A container's name server on the real kernel, in the loop its shim runs it in. Who asks are sockets in the container's
//! namespace; who is asked are resolvers of the test, which misbehave as told. Messages are made and read by hickory-proto,
//! so that ours are judged by somebody else's reading of the RFCs.

mod asker;
mod forward;
mod guests;
mod hostile;
mod limits;
mod names;
mod resolver;
mod shim;
