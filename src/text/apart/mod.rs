//! Code that works on foreign tokenizers and templates, in a process of its own.
//!
//! A tokenizer.json and a chat template are programs for two libraries, which panic, overflow their
//! stack or take all memory and time on some that lie. A process can be ended where a call cannot:
//! the program starts itself again ([`serve`]), with bounds of memory and time, and asks over pipes.
//! What ends there is an error here. The bounds grow with what is asked, so a long text has its time.
mod serve;
mod wire;

pub use serve::serve;

use super::TextError;
use std::{
    io::{BufReader, Read as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
pub(super) use wire::{Answer, Facts, Request};

/// The first argument of the program when it is the helper.
pub const ARGUMENT: &str = "--text-helper";

/// The exit code of a helper that took too long.
const TOO_LONG: u8 = 75;

/// What a call may take, whatever it is given, and more for each byte that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Milliseconds.
    pub milliseconds: u64,
    /// Bytes of address space, the program itself included.
    pub memory: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { milliseconds: 30_000, memory: 2 << 30 }
    }
}

/// More microseconds for each byte of a call: a slow tokenizer takes one.
const MICROSECONDS_A_BYTE: u64 = 20;
/// More memory for each byte of a call: the library keeps where each byte came from, several times.
const MEMORY_A_BYTE: u64 = 400;

impl Bounds {
    fn of(self, bytes: usize) -> Self {
        let bytes = bytes as u64;
        Self {
            milliseconds: self.milliseconds + bytes * MICROSECONDS_A_BYTE / 1000,
            memory: self.memory.saturating_add(bytes.saturating_mul(MEMORY_A_BYTE)),
        }
    }
}

/// How helpers are started.
#[derive(Clone, Debug)]
pub struct Guard {
    program: PathBuf,
    bounds: Bounds,
}

static INSTALLED: OnceLock<Guard> = OnceLock::new();

impl Guard {
    /// Helpers are processes of a program that calls [`serve`] when its first argument is
    /// [`ARGUMENT`].
    pub fn new(program: PathBuf, bounds: Bounds) -> Self {
        Self { program, bounds }
    }

    /// Helpers are processes of this program.
    pub fn of_this_program() -> std::io::Result<Self> {
        // Where there is one, the link holds on to the program when its file is replaced.
        let link = PathBuf::from("/proc/self/exe");
        let program = if link.exists() { link } else { std::env::current_exe()? };
        Ok(Self::new(program, Bounds::default()))
    }

    /// All tokenizers that are read from here on have a helper, except those of the program.
    pub fn install(self) {
        // A second one would be the same.
        let _ = INSTALLED.set(self);
    }

    pub(super) fn installed() -> Option<&'static Self> {
        INSTALLED.get()
    }

    pub(super) fn start(&self) -> Result<Arc<Helper>, TextError> {
        let Bounds { milliseconds, memory } = self.bounds;
        let started = Command::new(&self.program)
            .args([ARGUMENT, &milliseconds.to_string(), &memory.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let failed = |detail: String| TextError::Helper { detail };
        let mut child = started.map_err(|error| failed(error.to_string()))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (to, from) = pipes.ok_or_else(|| failed("no pipes".to_owned()))?;
        let running = Running { child, to, from: BufReader::new(from) };
        Ok(Arc::new(Helper { bounds: self.bounds, state: Mutex::new(State::Running(running)) }))
    }
}

/// A process that works on one tokenizer and its templates.
#[derive(Debug)]
pub(super) struct Helper {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Running(Running),
    /// Why it ended: every later call has the same end.
    Ended(String),
}

#[derive(Debug)]
struct Running {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It waits for a question, or is not needed any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Helper {
    /// The answer to a question. `part` is named when the helper ends over it.
    pub(super) fn ask(&self, request: &Request<'_>) -> Result<Answer, TextError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = match &mut *state {
            State::Ended(reason) => reason.clone(),
            State::Running(running) => match running.exchange(request) {
                Ok(Answer::Failed(fault)) => return Err(fault.into()),
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let bounds = self.bounds.of(request.bytes());
                    let reason = running.end(bounds).unwrap_or_else(|| error.to_string());
                    *state = State::Ended(reason.clone());
                    reason
                }
            },
        };
        let (file, part) = request.part();
        Err(TextError::Stopped { file, part: part.to_owned(), reason })
    }
}

impl Running {
    fn exchange(&mut self, request: &Request<'_>) -> std::io::Result<Answer> {
        wire::send(&mut self.to, request)?;
        wire::receive(&mut self.from)?.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }

    /// Why the helper has ended.
    fn end(&mut self, bounds: Bounds) -> Option<String> {
        let mut said = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(1 << 16).read_to_end(&mut said);
        }
        let status = self.child.wait().ok()?;
        Some(reason(status, &String::from_utf8_lossy(&said), bounds))
    }
}

fn reason(status: ExitStatus, said: &str, bounds: Bounds) -> String {
    if status.code() == Some(TOO_LONG.into()) {
        return format!("it took longer than {} seconds", bounds.milliseconds.div_ceil(1000));
    }
    if said.contains("memory allocation of") {
        return format!(
            "it took more than {:.1} GiB of memory",
            bounds.memory as f64 / 2_f64.powi(30)
        );
    }
    if said.contains("overflowed its stack") {
        return "it is nested too deeply".to_owned();
    }
    format!("its process ended with {status}")
}
