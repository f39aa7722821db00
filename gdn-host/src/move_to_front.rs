//! PTX as packs hold it: a register's number says how many others of its kind were used since it was.
//!
//! The compiler numbers the registers of a kernel through, so that an instruction more renames all that follow, and two kernels
//! that do the same have no line in common. What an instruction works on is mostly what was computed just before. Told by that,
//! kernels resemble each other, and what is compressed has a third of the bytes.
//!
//! ```text
//! add.s32 %r41, %r40, %r7;     add.s32 %r+1, %r1, %r12;     new, one above the newest; used last but one before it; ...
//! mul.lo.s32 %r42, %r41, 3;    mul.lo.s32 %r+1, %r1, 3;
//! ```
//!
//! A kind is what stands between `%` or `$` and a number: `%r`, `%rd`, `$L__BB_` of labels. A kernel ends, and all numbers are
//! new again, where a line begins with `}`. All else stays as it is. The build script reads this file too.

/// The text for a pack; nothing if it could not be [restored](restore), which no compiler's is.
pub fn shorten(ptx: &[u8]) -> Option<Vec<u8>> {
    let short = rewrite(ptx, |kind, number, out| {
        let number = decimal(number)?;
        match kind.recent.iter().rposition(|&other| other == number) {
            Some(place) => {
                let since = kind.recent.len() - 1 - place;
                kind.use_again(since)?;
                out.extend_from_slice(since.to_string().as_bytes());
            }
            None => {
                let step = i64::from(number) - i64::from(kind.newest);
                kind.use_first(number);
                out.extend_from_slice(format!("{step:+}").as_bytes());
            }
        }
        Some(())
    })?;
    (restore(&short).as_deref() == Some(ptx)).then_some(short)
}

/// The PTX of a [shortened](shorten) text; nothing if the text is damaged so that it names registers which are not there.
pub fn restore(short: &[u8]) -> Option<Vec<u8>> {
    rewrite(short, |kind, number, out| {
        let number = match number {
            [sign @ (b'+' | b'-'), digits @ ..] => {
                let step = i64::from(decimal(digits)?);
                let step = if *sign == b'-' { -step } else { step };
                let number = u32::try_from(i64::from(kind.newest) + step).ok()?;
                kind.use_first(number);
                number
            }
            digits => kind.use_again(decimal(digits)? as usize)?,
        };
        out.extend_from_slice(number.to_string().as_bytes());
        Some(())
    })
}

/// The numbers of a kind in a kernel.
#[derive(Default)]
struct Kind {
    /// Those used so far, the last one last.
    recent: Vec<u32>,
    /// The one that was used for the first time last.
    newest: u32,
}

impl Kind {
    /// Uses the number once more that `since` others were used after.
    fn use_again(&mut self, since: usize) -> Option<u32> {
        let place = self.recent.len().checked_sub(since.checked_add(1)?)?;
        self.recent[place..].rotate_left(1);
        self.recent.last().copied()
    }

    fn use_first(&mut self, number: u32) {
        self.recent.push(number);
        self.newest = number;
    }
}

/// The text with every number behind a kind, with its sign if it has one, as `write` writes it.
fn rewrite(text: &[u8], write: impl Fn(&mut Kind, &[u8], &mut Vec<u8>) -> Option<()>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 2);
    let mut kinds: Vec<(&[u8], Kind)> = Vec::new();
    let mut rest = text;
    while let Some(&byte) = rest.first() {
        let literal = match byte {
            b'%' | b'$' => 1 + length(&rest[1..], |byte| byte.is_ascii_alphabetic() || *byte == b'_'),
            b'}' if out.last() == Some(&b'\n') => {
                kinds.clear();
                1
            }
            _ => 1,
        };
        let (name, behind) = rest.split_at(literal);
        out.extend_from_slice(name);
        rest = behind;
        if literal > 1 {
            let sign = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
            let digits = length(&rest[sign..], |byte| byte.is_ascii_digit());
            if digits > 0 {
                let place = kinds.iter().position(|(kind, _)| *kind == name).unwrap_or_else(|| {
                    kinds.push((name, Kind::default()));
                    kinds.len() - 1
                });
                let (number, behind) = rest.split_at(sign + digits);
                write(&mut kinds[place].1, number, &mut out)?;
                rest = behind;
            }
        }
    }
    Some(out)
}

/// How many bytes at the start are such.
fn length(text: &[u8], is_such: impl Fn(&u8) -> bool) -> usize {
    text.iter().take_while(|byte| is_such(byte)).count()
}

fn decimal(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "\tadd.s32 \t%r41, %r40, %r7;\n\tmul.lo.s32 %r42, %r41, 3;\n\tld.b32 %r7, [%rd3+24];\n\
                       \t@%p1 bra $L__BB_2;\n$L__BB_2:\n\tmov.u32 %r7, %tid.x;\n}\n\tadd.s32 %r41, %r41, -7;\n";
    const SHORT: &str = "\tadd.s32 \t%r+41, %r-1, %r-33;\n\tmul.lo.s32 %r+35, %r3, 3;\n\tld.b32 %r2, [%rd+3+24];\n\
                         \t@%p+1 bra $L__BB_+2;\n$L__BB_0:\n\tmov.u32 %r0, %tid.x;\n}\n\tadd.s32 %r+41, %r0, -7;\n";

    #[test]
    fn registers_are_told_by_their_last_use_and_come_back() {
        let short = shorten(PTX.as_bytes()).unwrap();
        assert_eq!(String::from_utf8_lossy(&short), SHORT);
        assert_eq!(restore(&short).unwrap(), PTX.as_bytes());
    }

    #[test]
    fn what_would_not_come_back_is_refused() {
        for text in ["%r+1", "%r-2 ", "%r01", "%r4294967296", "%r1, %r+1"] {
            assert_eq!(shorten(text.as_bytes()), None, "{text}");
        }
        for text in ["", "%", "%r", "%r+", "$%r1", "%%r1", "}%r1\n}%r1", "\u{e4}%r1", "%r4294967295, %r0"] {
            let short = shorten(text.as_bytes());
            assert_eq!(short.and_then(|short| restore(&short)).as_deref(), Some(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn damaged_text_is_no_panic() {
        for text in ["%r0", "%r+1, %r1", "%r-1", "%r+4294967296", "%r99999999999", "%r+4294967295, %r+1"] {
            assert_eq!(restore(text.as_bytes()), None, "{text}");
        }
    }
}
