//! Marked regions of a document, and their filling.

use anyhow::{Context as _, Result, ensure};

const OPEN: &str = "<!-- report:";
const CLOSE: &str = "<!-- /report -->";

/// The text with each region filled by `part`, which is given the words of its marker. Parts of several lines stand in
/// lines of their own, with an empty line around them, as Markdown wants it behind a comment.
pub(super) fn fill(text: &str, part: impl Fn(&[&str]) -> Result<String>) -> Result<String> {
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, from)) = rest.split_once(OPEN) {
        let (marker, after) = from.split_once("-->").context("a report marker has no end")?;
        let marker = marker.trim();
        let (old, behind) =
            after.split_once(CLOSE).with_context(|| format!("report: {marker}: no {CLOSE} behind it"))?;
        ensure!(!old.contains(OPEN), "report: {marker}: no {CLOSE} before the next one");
        let words: Vec<&str> = marker.split_whitespace().collect();
        let new = part(&words).with_context(|| format!("report: {marker}"))?;
        let is_inline = !new.contains('\n');
        let starts_line = filled.is_empty() && before.is_empty() || before.ends_with('\n');
        ensure!(
            !(is_inline && starts_line),
            "report: {marker}: a comment that starts a line ends the paragraph"
        );
        let new = if !is_inline { format!("\n\n{}\n\n", new.trim_end()) } else { new };
        filled += &format!("{before}{OPEN} {marker} -->{new}{CLOSE}");
        rest = behind;
    }
    Ok(filled + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String> {
        fill(text, |words| match words {
            ["one", x] => Ok(format!("<{x}>")),
            ["lines"] => Ok("| a |\n|---|\n".into()),
            _ => anyhow::bail!("unknown"),
        })
    }

    #[test]
    fn regions_are_replaced_and_all_else_stays() {
        let text = "It takes <!-- report: one 7 -->old<!-- /report --> us.\n<!-- report: lines --><!-- /report -->\nend\n";
        let want = "It takes <!-- report: one 7 --><7><!-- /report --> us.\n<!-- report: lines -->\n\n| a |\n|---|\n\n<!-- /report -->\nend\n";
        assert_eq!(filled(text).unwrap(), want);
        assert_eq!(filled(want).unwrap(), want, "filling twice changes nothing");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text| format!("{:#}", filled(text).unwrap_err());
        assert_eq!(error("<!-- report: two --><!-- /report -->"), "report: two: unknown");
        assert!(error("a <!-- report: one 1 -->x").starts_with("report: one 1: no <!-- /report -->"));
        let first = "text\n<!-- report: one 1 --><!-- /report -->";
        assert!(error(first).contains("one 1: a comment that starts a line"));
        let twice = "a <!-- report: one 1 -->x<!-- report: one 2 -->y<!-- /report -->";
        assert!(error(twice).contains("one 1: no <!-- /report --> before the next one"));
    }
}
