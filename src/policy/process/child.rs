//! The process itself: how it is begun, spoken to, waited for and ended.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child as Process, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::super::wire::{MOST_REPLY_BYTES, receive};

/// What the runtime writes when an allocation fails, before it aborts.
const NO_MEMORY: &str = "memory allocation of";
/// How long one may take to end whose pipe is closed.
const DYING: Duration = Duration::from_secs(2);
/// Enough of its last words to know them by.
const LAST_WORDS_BYTES: u64 = 4_096;

/// A worker, and the thread that holds its pipes: writing to one that does not read, and reading from one that does not write,
/// would hold up whoever asks.
pub(super) struct Child {
    process: Process,
    last_words: Option<ChildStderr>,
    memory_mib: u64,
    requests: mpsc::Sender<Vec<u8>>,
    replies: mpsc::Receiver<Heard>,
}

/// What came of waiting for a worker.
pub(super) enum Heard {
    /// A message.
    Said(Vec<u8>),
    /// Nothing within the time.
    Nothing,
    /// Something that is no message.
    Nonsense,
    /// It is gone.
    End,
}

/// How a worker ended by itself.
pub(super) enum End {
    /// For want of memory.
    Memory,
    /// Otherwise.
    Other(String),
}

impl Child {
    /// Begins a worker. It is told nothing of the environment: secrets are there.
    pub fn start(program: &OsStr, memory_mib: u64) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg0("hydromesh").arg("gate-worker").arg("--memory-mib").arg(memory_mib.to_string());
        command.env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (requests, asked) = mpsc::channel::<Vec<u8>>();
        let (said, replies) = mpsc::channel();
        let (began, begun) = mpsc::sync_channel(1);
        // The system ends a worker with the thread that began it, so that is the thread that lives as long.
        std::thread::Builder::new().name("gate pipes".to_owned()).spawn(move || {
            let mut process = match command.spawn() {
                Ok(process) => process,
                Err(error) => return drop(began.send(Err(error))),
            };
            let pipes = (process.stdin.take(), process.stdout.take());
            let _ = began.send(Ok(process));
            if let (Some(to), Some(from)) = pipes {
                pass_on(&asked, to, from, &said);
            }
        })?;
        let mut process = begun.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        let last_words = process.stderr.take();
        Ok(Self { process, last_words, memory_mib, requests, replies })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn memory_mib(&self) -> u64 {
        self.memory_mib
    }

    /// Sends a request; when the worker is gone, the next [`Child::hear`] says so.
    pub fn send(&self, request: Vec<u8>) {
        let _ = self.requests.send(request);
    }

    /// Waits for a message.
    pub fn hear(&self, most: Duration) -> Heard {
        match self.replies.recv_timeout(most) {
            Ok(heard) => heard,
            Err(mpsc::RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(mpsc::RecvTimeoutError::Disconnected) => Heard::End,
        }
    }

    /// Returns how a worker ended that is gone.
    pub fn end(&mut self) -> End {
        let mut words = Vec::new();
        let until = Instant::now() + DYING;
        let ended = loop {
            match self.process.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => {
                    // It closed its pipe and lives on.
                    let _ = self.process.kill();
                    break self.process.wait();
                }
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error),
            }
        };
        if let Some(pipe) = self.last_words.take() {
            let _ = pipe.take(LAST_WORDS_BYTES).read_to_end(&mut words);
        }
        if String::from_utf8_lossy(&words).contains(NO_MEMORY) {
            return End::Memory;
        }
        End::Other(match ended {
            Ok(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => format!("signal {signal}"),
                (None, code) => format!("exit code {}", code.unwrap_or(0)),
            },
            Err(error) => error.to_string(),
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Whatever it is busy with, and reaped, so that none is left behind. What fails here has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Passes requests to the worker, and what it says to whoever asked, until one of them is gone.
fn pass_on(
    asked: &mpsc::Receiver<Vec<u8>>,
    mut to: ChildStdin,
    mut from: ChildStdout,
    said: &mpsc::Sender<Heard>,
) {
    for request in asked {
        if to.write_all(&request).and_then(|()| to.flush()).is_err() {
            break;
        }
        loop {
            let heard = match receive(&mut from, MOST_REPLY_BYTES) {
                Ok(Some(bytes)) => Heard::Said(bytes),
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => Heard::Nonsense,
                Err(_) => return,
            };
            // More follows what only says where it is.
            let more = matches!(&heard, Heard::Said(bytes) if bytes.starts_with(br#"{"asking""#));
            if said.send(heard).is_err() {
                return;
            }
            if !more {
                break;
            }
        }
    }
}
