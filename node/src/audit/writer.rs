//! The thread that writes lines. A file that was moved or deleted (log rotation) is opened again by its name.
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use crate::{
    clock,
    metrics::{Counter, Metrics},
};

/// Lines that wait: some MiB at most.
const MAX_WAITING: usize = 8192;
/// Lines that are written at once.
const MAX_BATCH: usize = 256;
/// How long a stop waits for the log.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

enum Message {
    Line(String),
    /// Respond when everything before is written.
    Flush(SyncSender<()>),
}

pub(super) struct Writer {
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl Writer {
    pub(super) fn start(target: &Path, metrics: Arc<Metrics>) -> io::Result<Self> {
        let output = Output::open(target)?;
        let (lines, received) = sync_channel(MAX_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let task = Task {
            output,
            lost: Arc::clone(&lost),
            metrics: Arc::clone(&metrics),
            failing: false,
        };
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || task.run(&received))?;
        Ok(Self {
            lines,
            lost,
            metrics,
        })
    }

    /// Never waits.
    pub(super) fn send(&self, line: String) {
        if self.lines.try_send(Message::Line(line)).is_err() {
            self.lost.fetch_add(1, Relaxed);
            self.metrics.count(Counter::AuditRecordsLost);
        }
    }

    pub(super) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_LIMIT);
        }
    }
}

struct Task {
    output: Output,
    /// Lines that were lost and of which the log does not say so yet.
    lost: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    /// The last attempt to write failed, which was logged.
    failing: bool,
}

impl Task {
    fn run(mut self, received: &Receiver<Message>) {
        while let Ok(first) = received.recv() {
            let mut text = String::new();
            let mut count = 0;
            let mut flushed = Vec::new();
            for message in std::iter::once(first).chain(received.try_iter().take(MAX_BATCH)) {
                match message {
                    Message::Line(line) => {
                        text.push_str(&line);
                        count += 1;
                    }
                    Message::Flush(done) => flushed.push(done),
                }
            }
            self.write(text, count);
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self, mut text: String, count: u64) {
        let lost = self.lost.swap(0, Relaxed);
        if lost > 0 {
            text.push_str(&gap(lost));
        }
        match self.output.write(text.as_bytes()) {
            Ok(()) => {
                self.metrics.add(Counter::AuditRecords, count);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(target: "audit", "the audit log is written again");
                }
            }
            Err(error) => {
                // Said in the log once it can be written.
                self.lost.fetch_add(lost + count, Relaxed);
                self.metrics.add(Counter::AuditRecordsLost, count);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(target: "audit", "the audit log cannot be written, its lines are lost: {error}");
                }
            }
        }
    }
}

/// The line that says how many are missing.
fn gap(lost: u64) -> String {
    let time = clock::rfc3339(clock::now());
    let line = serde_json::json!({ "time": time, "action": "lost", "lost": lost });
    format!("{line}\n")
}

enum Output {
    Stderr,
    File { path: PathBuf, file: File },
}

impl Output {
    fn open(target: &Path) -> io::Result<Self> {
        if target == Path::new("stderr") {
            return Ok(Self::Stderr);
        }
        Ok(Self::File {
            path: target.to_owned(),
            file: open_file(target)?,
        })
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().write_all(text),
            Self::File { path, file } => {
                if !is_same(path, file) {
                    *file = open_file(path)?;
                }
                file.write_all(text)
            }
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    Ok(file)
}

fn is_same(path: &Path, file: &File) -> bool {
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}
