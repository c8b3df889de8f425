//! The errno law and the closing law: what plain Linux shows is what `lastack run` shows, on both sides.

use std::process::Command;

use lastack_e2e::binaries;
use lastack_e2e::process::run;
use serde_json::Value;

use crate::{LONG, needs_run};

#[test]
fn programs_and_kernels_see_what_they_see_without_us() {
    needs_run!();
    needs!("ip", "unshare", "nsenter");
    let play = binaries::build("lastack-e2e", "closing-law");
    let _ = (binaries::lastack(), binaries::actor());
    let ended = run(Command::new(play).args(["--json", "--carriers", "linux,lastack"]), LONG).unwrap();
    let document: Value =
        serde_json::from_str(&ended.text()).unwrap_or_else(|e| panic!("{e}: {}", ended.stderr));
    let cases = document["cases"].as_array().expect("cases");
    assert!(cases.len() > 50, "{} cases", cases.len());
    let mut broken = String::new();
    for case in cases {
        let lastack = &case["carriers"]["lastack"];
        let mut faults = Vec::new();
        faults.extend(lastack["seen"]["error"].as_str().map(str::to_owned));
        for list in ["departures", "journal_faults"] {
            faults.extend(
                lastack[list].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned),
            );
        }
        if !faults.is_empty() {
            let law = case["law"].as_str().unwrap_or("?");
            let id = case["case"].as_str().unwrap_or("?");
            broken += &format!("{law} law, {id}:\n    {}\n", faults.join("\n    "));
        }
    }
    assert!(broken.is_empty(), "lastack shows what plain Linux does not:\n{broken}");
}
