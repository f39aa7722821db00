//! Tables are read as they are written, refused by line and field, and chosen by the device.

use super::*;
use crate::plan::Work;

const H200: Caps = Caps { sms: 132, compute: 90, memory_gbps: 4814 };

const HEAD: &str = "device A\ncompute 90\ngbps_per_sm 30\n";

/// The text with its lines of classes.
fn parse(lines: &str) -> Result<Tuning, TuningError> {
    Tuning::parse(&format!("{HEAD}{lines}"))
}

#[test]
fn embedded_tables_have_every_class_and_are_written_as_they_lie_here() {
    assert_eq!(Tuning::embedded().len(), EMBEDDED.len());
    for (table, text) in Tuning::embedded().iter().zip(EMBEDDED) {
        let name = &table.device;
        for class in Class::all() {
            assert!(table.look_up(class, Load(1)).is_some(), "{name} lacks {class:?}");
        }
        assert_eq!(table.classes.len(), Class::all().count(), "{name}");
        assert_eq!(table.to_string(), text, "{name}: write it by `cargo xtask tune`");
    }
}

#[test]
fn a_step_is_for_loads_up_to_its_own() {
    let table = parse(
        "decode vk gdn f32 0.375 small 4 0 early\n\
         decode vk gdn f32 2 large 4 0 plain # half a state a block\n\
         decode vk gdn f32 * large 8 96 plain\n",
    )
    .unwrap();
    let (class, _) = table.classes[0];
    assert_eq!((class.work, class.is_narrow), (Work::Decode, false));
    let teams = [1, 3, 4, 16, 17, u64::MAX].map(|eighths| {
        let step = table.look_up(class, Load(eighths)).unwrap();
        (step.tile, step.teams, step.ahead_kib, step.early)
    });
    let (small, large, last) =
        ((Height::Small, 4, 0, true), (Height::Large, 4, 0, false), (Height::Large, 8, 96, false));
    assert_eq!(teams, [small, small, large, large, last, last]);
    assert_eq!(table.look_up(Class { is_narrow: true, ..class }, Load(1)), None);
}

#[test]
fn a_class_that_a_callers_table_lacks_goes_by_the_embedded_one() {
    let table = parse("decode vk gdn f32 * large 8 0 plain\n").unwrap();
    let (class, _) = table.classes[0];
    assert_eq!(table.choose(class, Load(1), &H200).0, Tuned::ByCaller);
    let other = Class { is_narrow: true, ..class };
    let embedded = Tuning::nearest(&H200);
    assert_eq!(
        table.choose(other, Load(1), &H200),
        (Tuned::For("NVIDIA H200"), embedded.look_up(other, Load(1)).unwrap())
    );
}

#[test]
fn a_bad_table_is_refused_by_line_and_field() {
    let refused = |lines: &str| parse(lines).unwrap_err().to_string();
    let line = |up_to: &str, rest: &str| format!("decode vk gdn f32 {up_to} {rest}\n");
    let good = "large 8 0 plain";
    for (lines, error) in [
        (
            "prefill vk gdn f32 * large 8 0 plain".into(),
            "line 4: operation: `prefill` is not one of decode, update, verify, replay_decode, replay_verify",
        ),
        ("decode vv gdn f32 * large 8 0 plain".into(), "line 4: layout: `vv` is not one of vk, kv"),
        ("decode vk gdn bf16 * large 8 0 plain".into(), "line 4: state: `bf16` is not one of f32, 16bit"),
        (
            "decode vk gdn f32 * large 8 0".into(),
            "line 4: columns: `decode vk gdn f32 * large 8 0` has 8 columns, not 9",
        ),
        (
            line("0.3", good),
            "line 4: up to: `0.3` is neither * nor a positive number of eighths, such as 1.125",
        ),
        (line("-1", good), "line 4: up to: `-1` is neither"),
        (line("NaN", good), "line 4: up to: `NaN` is neither"),
        (line("*", "large 3 0 plain"), "line 4: teams: 3 is not a power of two"),
        (line("*", "large 0 0 plain"), "line 4: teams: `0` is not a whole number from 1 to 16"),
        (line("*", "large 32 0 plain"), "line 4: teams: `32` is not a whole number from 1 to 16"),
        (line("*", "huge 4 0 plain"), "line 4: tile: `huge` is not one of small, large, whole"),
        (line("*", "large 4 -1 plain"), "line 4: ahead: `-1` is not a whole number from 0 to 4096"),
        (line("*", "large 4 0 yes"), "line 4: early: `yes` is not one of early, plain"),
        ("verify vk gdn f32 * large 4 0 early".into(), "line 4: early: verify is never launched early"),
        (line("2", good) + &line("1", good), "line 5: up to: it is not above the step before"),
        (line("2", good) + &line("2", good), "line 5: up to: it is not above the step before"),
        (line("*", good) + &line("*", good), "line 5: up to: a step follows the one for any load"),
        (line("1", good), "line 4: up to: the class before ends without a step for any load (*)"),
        (line("1", good) + "update vk gdn f32 * large 8 0 plain", "line 5: up to: the class before ends"),
        (
            line("*", good) + "update vk gdn f32 * large 8 0 plain\n" + &line("*", good),
            "line 6: operation: the lines of a class do not follow each other",
        ),
    ] {
        let got = refused(&lines);
        assert!(got.starts_with(error), "{lines}: {got}");
    }
    let headless = |text: &str| Tuning::parse(text).unwrap_err().to_string();
    assert_eq!(headless("compute 90\ngbps_per_sm 1\n"), "line 2: device: the line is missing");
    assert_eq!(headless(""), "line 0: device: the line is missing");
    assert!(
        headless("device A\ncompute ninety").starts_with("line 2: compute: `ninety` is not a whole number")
    );
    assert!(headless("device A\ncompute 90\ngbps_per_sm inf").starts_with("line 3: gbps_per_sm: `inf`"));
}

#[test]
fn a_device_takes_the_table_of_the_nearest_memory() {
    let nearest =
        |sms, compute, memory_gbps| Tuning::nearest(&Caps { sms, compute, memory_gbps }).device.clone();
    assert_eq!(nearest(132, 90, 4814), "NVIDIA H200");
    assert!(nearest(132, 90, 3352).starts_with("NVIDIA H100"));
    // L4, A100, RTX PRO 6000, B200; a device that does not tell its bandwidth.
    let slow = [(58, 89, 300), (108, 80, 2039), (188, 120, 1792), (132, 90, 0)];
    assert!(
        slow.into_iter().all(|(sms, compute, gbps)| nearest(sms, compute, gbps).starts_with("NVIDIA H100"))
    );
    assert_eq!(nearest(148, 100, 8000), "NVIDIA H200");
}

#[test]
fn what_is_written_is_read_again() {
    let mut table = Tuning { tuned: Tuned::ByCaller, ..Tuning::embedded()[0].clone() };
    table.notes = vec!["measured by hand".into(), "on two days".into()];
    // It is written with one decimal place.
    table.gbps_per_sm = 36.5;
    assert_eq!(Tuning::parse(&table.to_string()).unwrap(), table);
    assert_eq!(Tuning::parse(&format!("{HEAD}# no note\n")).unwrap().notes, [""; 0]);
}
