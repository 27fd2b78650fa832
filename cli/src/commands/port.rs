//! `berth port`.

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Port {
    /// Container
    container: String,
    /// Only this port
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub fn run(args: Port, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let ports = engine.port(&engine.find(&args.container)?)?;
    let wanted = args.port.map(|port| {
        if port.contains('/') {
            port
        } else {
            format!("{port}/tcp")
        }
    });
    let mut found = false;
    for mapping in ports {
        let inside = format!("{}/{}", mapping.container_port, mapping.protocol);
        let outside = format!("{}:{}", mapping.host_ip, mapping.host_port);
        match &wanted {
            None => printer::line(&format!("{inside} -> {outside}"))?,
            Some(wanted) if *wanted == inside => {
                found = true;
                printer::line(&outside)?;
            }
            Some(_) => {}
        }
    }
    match wanted {
        Some(port) if !found => Err(Failure::new(format!(
            "container {} publishes no port {port}",
            args.container
        ))),
        _ => Ok(Exit::Success),
    }
}
