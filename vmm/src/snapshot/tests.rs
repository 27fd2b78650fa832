//! State files that are none. Whole machines are saved and restored in tests/tests/vmm_snapshot.rs.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::config::VCPUS_MAX;

fn state() -> State {
    State {
        maker: maker(),
        settings: br#"{"boot-source": {"kernel_image_path": "/k"}}"#.to_vec(),
        memory: vec![(0, 128 << 20)],
        processors: vec![Processor::default()],
        chips: Chips::default(),
        serial: serial::Saved::default(),
        keyboard: Keyboard::new(vmm_sys_util::eventfd::EventFd::new(0).unwrap()).save(),
        devices: Vec::new(),
    }
}

/// A file that holds these bytes as its state, whatever they are.
fn file(state: &[u8]) -> Vec<u8> {
    let mut file = b"berth-vm\x02\0\0\0".to_vec();
    file.extend((state.len() as u64).to_le_bytes());
    file.extend(Sha256::digest(state));
    file.extend(state);
    file
}

fn refusal(bytes: &[u8]) -> String {
    let error = state_file::decode(bytes).err().expect("it is none");
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn a_state_is_read_as_it_was_written() {
    let bytes = state_file::encode(&state()).unwrap();
    let read = state_file::decode(&bytes).unwrap();
    assert_eq!(state_file::encode(&read).unwrap(), bytes);
    assert_eq!(file(&bytes[52..]), bytes, "the head is as it is documented");
    assert!(refusal(&file(&[&bytes[52..], b"x"].concat())).contains("holds no state"));
    assert!(refusal(&file(&bytes[52..bytes.len() - 1])).contains("holds no state"));
    for length in 0..60 {
        refusal(&bytes[..length]);
    }
}

#[test]
fn no_list_is_longer_than_any_of_ours() {
    let many = |change: &dyn Fn(&mut State)| {
        let mut state = state();
        change(&mut state);
        let state = postcard::to_stdvec(&state).unwrap();
        refusal(&file(&state))
    };
    let processors = |count: u8| (0..count).map(|_| Processor::default()).collect();
    for said in [
        many(&|state| state.processors = processors(VCPUS_MAX + 1)),
        many(&|state| state.memory = vec![(0, 0); 3]),
        many(&|state| state.settings = vec![b' '; SETTINGS_MAX + 1]),
    ] {
        assert!(said.contains("holds no state"), "{said}");
    }
    let mut most = state();
    most.processors = processors(VCPUS_MAX);
    let bytes = state_file::encode(&most).unwrap();
    assert!(bytes.len() < STATE_MAX / 2, "{}", bytes.len());
    state_file::decode(&bytes).unwrap();
}

#[test]
fn a_state_that_contradicts_itself_is_refused() {
    let fits = |change: &dyn Fn(&mut State)| {
        let mut state = state();
        change(&mut state);
        state.fits(1, 128).map_err(|e| e.to_string())
    };
    assert_eq!(fits(&|_| {}), Ok(()));
    for (words, change) in [
        (
            "processors: there are not",
            &(|s: &mut State| s.processors.clear()) as &dyn Fn(&mut State),
        ),
        ("memory: it does not lie", &|s| s.memory[0].1 += 4096),
        ("memory: it does not lie", &|s| s.memory.push((1 << 32, 4096))),
        ("another maker", &|s| s.maker[1] ^= 1),
    ] {
        let said = fits(change).unwrap_err();
        assert!(said.contains(words), "{said}");
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        let _ = state_file::decode(&bytes);
        let _ = state_file::decode(&file(&bytes));
    }

    /// With its checksum put right, so that everything behind it is looked at.
    #[test]
    fn no_change_breaks_the_reader(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let bytes = state_file::encode(&state()).unwrap();
        let mut bytes = bytes[52..].to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(state) = state_file::decode(&file(&bytes)) {
            let _ = state.fits(1, 128);
            let _ = state.settings();
        }
    }
}
