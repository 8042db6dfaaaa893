//! Progress bars on stderr.
use crate::progress::{Progress, Unit};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::{Mutex, PoisonError};

/// One bar at a time, with rate and time left; silent when not shown.
#[derive(Debug)]
pub(super) struct Bars {
    shown: bool,
    bar: Mutex<ProgressBar>,
}

impl Bars {
    pub(super) fn new(shown: bool) -> Self {
        Self { shown, bar: Mutex::new(ProgressBar::hidden()) }
    }

    fn bar(&self) -> ProgressBar {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.bar().suspend(print);
    }
}

impl Progress for Bars {
    fn start(&self, what: &str, total: u64, unit: Unit) {
        let counts = match unit {
            Unit::Bytes => "{bytes}/{total_bytes} {bytes_per_sec}",
            Unit::Tokens => "{human_pos}/{human_len} tokens, {per_sec}",
            Unit::Items => "{human_pos}/{human_len}, {per_sec}",
        };
        let template = format!("{{msg:>12}} [{{bar:30}}] {counts}, {{eta}} left");
        let style = ProgressStyle::with_template(&template)
            .expect("the template is fixed")
            .progress_chars("=> ");
        let target =
            if self.shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target)
            .with_style(style)
            .with_message(what.to_owned());
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }

    fn advance(&self, done: u64) {
        self.bar().inc(done);
    }

    fn finish(&self) {
        self.bar().finish_and_clear();
    }
}
