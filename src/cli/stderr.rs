//! Lines on stderr, without what a terminal or a pipeline would obey.
use crate::shown;
use std::io::Write as _;

/// A line on stderr. One that cannot be written is lost: there is no other place to tell it.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", shown::message(text));
}

/// As [`line`], lines that end as they are.
pub(super) fn lines(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", shown::lines(text));
}
