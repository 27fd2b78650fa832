//! The command line as docker's users type it: where flags end, switches with a value, help.

use crate::fixture::{berth, inside, remove_all, sleeping};

#[test]
fn what_follows_the_image_or_container_is_the_commands() {
    let Some(berth) = berth() else { return };
    for first in ["-v", "--help", "--rm", "--name=x", "-it", "--"] {
        let ran = berth.run(["run", "--rm", "--entrypoint", "echo", "busybox", first, "y"]);
        assert_eq!(ran.ok(), format!("{first} y"));
    }
    let _ = sleeping(&berth, "holder", &[]);
    for first in ["-x", "--help", "-it"] {
        let ran = berth.run(["exec", "holder", first]);
        assert_eq!(ran.code, 127, "{first}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(&format!("{first:?}")), "{}", ran.stderr);
    }
    remove_all(&berth);
}

#[test]
fn switches_take_a_value_behind_an_equals_sign() {
    let Some(berth) = berth() else { return };
    assert_eq!(
        inside(&berth, &["--read-only=false", "-it=false"], "touch /x && echo y"),
        "y"
    );
    let ran = berth.run(["run", "--rm=true", "--read-only=true", "busybox", "touch", "/x"]);
    assert_ne!(ran.code, 0);
    let _ = berth
        .run(["run", "--rm", "--rm=false", "--name", "kept", "busybox", "true"])
        .ok();
    let listed = ["ps", "--all=true", "--quiet=0", "--format", "{{.Names}}"];
    assert_eq!(berth.run(listed).ok(), "kept", "the last --rm counts");
    let ran = berth.run(["ps", "--all=maybe"]);
    assert_eq!(ran.code, 125);
    assert!(ran.stderr.contains("maybe"), "{}", ran.stderr);
    remove_all(&berth);
}

#[test]
fn help_is_a_flag_a_verb_and_what_no_verb_means() {
    let Some(berth) = berth() else { return };
    let flag = berth.run(["--help"]).ok();
    assert_eq!(berth.run::<_, &str>([]).ok(), flag);
    assert_eq!(berth.run(["help"]).ok(), flag);
    let run = berth.run(["run", "--help"]).ok();
    assert!(run.starts_with("Create and run a new container"), "{run}");
    assert_eq!(berth.run(["help", "run"]).ok(), run);
    assert_eq!(
        berth.run(["container"]).ok(),
        berth.run(["help", "container"]).ok()
    );
    assert!(berth.run(["-v"]).ok().starts_with("berth "));
    let unknown = berth.run(["help", "nonesuch"]);
    assert_eq!(unknown.code, 125, "{}", unknown.stdout);
}
