//! The API: bytes of a client, as requests and as changes of the configuration. How a socket cuts them makes no difference.

use berth_vmm::api::{Command, Fault, Request, Response, Setting};
use berth_vmm::config::Settings;
use berth_vmm::fuzzing::converse;

use crate::input::Input;

/// Bodies may have so many bytes.
const BODY_MAX: usize = 1000;

/// What comes of a request before the start, but for what only the host can say.
fn serve(settings: &mut Settings, request: &Request) -> Result<Response, String> {
    let command = Command::of(request).map_err(|fault: Fault| fault.to_string())?;
    let deprecated = command.is_deprecated();
    let Command::Set(setting) = command else {
        return Ok(Response::json(&*settings).deprecated(deprecated));
    };
    let before = settings.clone();
    let done = match setting {
        Setting::BootSource(boot) => settings.change(|new| new.boot_source = Some(boot)),
        Setting::Machine(machine) => settings.change(|new| new.machine_config = machine),
        Setting::MachineFields(fields) => {
            let machine = settings
                .machine_config
                .changed(&fields)
                .map_err(|e| e.to_string())?;
            settings.change(|new| new.machine_config = machine)
        }
        Setting::Cpu(cpu) => settings.change(|new| new.cpu_config = Some(cpu)),
        Setting::Drive(drive) => settings.put_drive(drive),
        Setting::NetworkInterface(interface) => settings.put_network_interface(interface),
        Setting::Vsock(vsock) => settings.change(|new| new.vsock = Some(vsock)),
        Setting::Entropy(entropy) => settings.change(|new| new.entropy = Some(entropy)),
        Setting::Balloon(balloon) => settings.change(|new| new.balloon = Some(balloon)),
        Setting::Logger(logger) => settings.change(|new| new.logger = Some(logger)),
        Setting::Metrics(metrics) => settings.change(|new| new.metrics = Some(metrics)),
    };
    if let Err(e) = done {
        assert_eq!(before, *settings, "what is refused changes nothing");
        return Err(e.to_string());
    }
    super::config::holds(settings);
    Ok(Response::done().deprecated(deprecated))
}

/// What one client hears.
fn talk<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut settings = Settings::default();
    converse(chunks, BODY_MAX, |request| {
        assert!(
            request.body.len() <= BODY_MAX,
            "a body of {} bytes",
            request.body.len()
        );
        serve(&mut settings, &request).unwrap_or_else(|why| Response::fault(&why))
    })
}

/// A client's bytes.
pub(super) fn api(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let cut = 1 + usize::from(input.byte());
    let said = input.bytes(usize::MAX);
    let whole = talk([said]);
    let cut = talk(said.chunks(cut));
    assert_eq!(
        String::from_utf8_lossy(&without_continue(&whole)),
        String::from_utf8_lossy(&without_continue(&cut)),
        "another answer to the same bytes"
    );
}

/// A client that waits before its body is told to go on only when it does wait.
fn without_continue(heard: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(heard);
    text.replace("HTTP/1.1 100 Continue\r\n\r\n", "").into_bytes()
}
