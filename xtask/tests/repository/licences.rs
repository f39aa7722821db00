//! Every dependency is under a licence that goes with MIT or Apache-2.0.

use super::cargo;
use serde_json::Value;
use spdx::Expression;

/// Licences that ask for no more than notices.
const ALLOWED: [&str; 8] =
    ["MIT", "Apache-2.0", "Zlib", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Unicode-3.0", "Unlicense"];

#[test]
fn dependencies_have_allowed_licences() {
    let output = cargo(&["metadata", "--format-version", "1"]);
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "only {} packages", packages.len());
    for package in packages {
        let (name, licence) = (&package["name"], package["license"].as_str());
        let licence = licence.unwrap_or_else(|| panic!("{name} states no licence"));
        assert!(is_allowed(licence), "{name} is under {licence}: only {ALLOWED:?} are allowed");
    }
}

fn is_allowed(licence: &str) -> bool {
    // The slash is what crates.io took before SPDX.
    let expression = Expression::parse(&licence.replace('/', " OR ")).unwrap();
    expression.evaluate(|asked| asked.license.id().is_some_and(|id| ALLOWED.contains(&id.name)))
}

#[test]
fn one_of_the_choices_has_to_be_allowed() {
    assert!(is_allowed("MIT OR LGPL-2.1-or-later") && is_allowed("MIT/Apache-2.0"));
    assert!(!is_allowed("GPL-3.0-only") && !is_allowed("MIT AND GPL-3.0-only"));
}
