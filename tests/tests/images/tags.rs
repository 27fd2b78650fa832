//! `pull --all-tags`: the registry's list of tags, whole and page by page.

use berth_tests::{Berth, Need, Registry, require};
use serde_json::json;

use crate::double::{Content, Double};
use crate::fixture::{Pushed, layout, pushed};

#[test]
fn all_tags_of_a_repository_are_pulled_and_no_other() {
    let Some(pushed) = pushed(Registry::start, &["one"], "in:1") else {
        return;
    };
    let Pushed {
        berth,
        registry,
        image,
        ..
    } = pushed;
    let _ = berth.run(["pull", "-q", &image]).ok();
    let out = format!("{}/out", registry.host());
    for tag in ["1", "2", "3"] {
        let name = format!("{out}:{tag}");
        let _ = berth.run(["tag", &image, &name]).ok();
        let _ = berth.run(["push", "-q", &name]).ok();
        let _ = berth.run(["rmi", &name]).ok();
    }
    let said = berth.run(["pull", "--quiet", "--all-tags", &out]).ok();
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    assert_eq!(said, ["1", "2", "3"].map(|tag| format!("{out}:{tag}")));
    let listed = berth.run(["images", "--format", "{{.Tag}}", &out]).ok();
    assert_eq!(listed.lines().count(), 3, "{listed}");

    let one = berth.run(["pull", "--all-tags", &format!("{out}:1")]);
    assert!(one.code == 1 && one.stderr.contains("out:1"), "{one:?}");
    let none = berth.run(["pull", "--all-tags", &format!("{}/nothing", registry.host())]);
    assert!(
        none.code == 1 && none.stderr.contains("nothing does not exist"),
        "{none:?}"
    );
}

#[test]
fn the_list_is_followed_page_by_page_and_to_no_other_host() {
    if !require(&[Need::Root, Need::Program("umoci")]) {
        return;
    }
    let berth = Berth::new();
    let mut content = Content::of_layout(&layout(berth.scratch(), &["one"]));
    let double = Double::new(content.clone());
    let name = double.image();
    let repository = name.rsplit_once(':').expect("it has a tag").0;
    let page = |tags: &[&str]| json!({"name": "served/image", "tags": tags}).to_string();
    let next = |place: &str| Some(format!("<{place}>; rel=\"next\""));
    content.tags = vec![
        (page(&["a", "b"]), next("/v2/served/image/tags/list?page=1")),
        (page(&["c"]), None),
    ];
    double.serve(content.clone());
    let said = berth.run(["pull", "-q", "-a", repository]).ok();
    assert_eq!(
        said,
        ["a", "b", "c"]
            .map(|tag| format!("{repository}:{tag}"))
            .join("\n")
    );

    let many: Vec<String> = (0..4000).map(|i| format!("t{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let endless = (page(&many), next("/v2/served/image/tags/list?page=0"));
    for (tags, word) in [
        (
            vec![(page(&["a"]), next("http://127.0.0.1:1/v2/served/image/tags/list"))],
            "another host",
        ),
        (vec![endless], "more than 10000"),
        (
            vec![(page(&[]), next("/v2/served/image/tags/list?page=0"))],
            "empty page",
        ),
        (vec![("junk".to_owned(), None)], "does not parse"),
        (vec![(page(&["../../x"]), None)], "../../x"),
    ] {
        content.tags = tags;
        double.serve(content.clone());
        let refused = Berth::new().run(["pull", "-q", "-a", repository]);
        assert_eq!(refused.code, 1, "{word}: {refused:?}");
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
}
