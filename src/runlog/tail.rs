//! Follows the lines of one run.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hydromesh_core::ids::ProductId;

use super::{Line, RunFiles};

/// How far the lines of a run were read.
#[derive(Debug)]
pub struct Tail {
    product: ProductId,
    run: String,
    /// The present file's number, and the bytes of it that were read.
    file: Option<(u64, u64)>,
}

impl Tail {
    /// Returns a reader that begins with the first line.
    #[must_use]
    pub fn new(product: ProductId, run: String) -> Self {
        Self { product, run, file: None }
    }

    /// Returns the run.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Returns the lines since the last call; half a line waits for its other half.
    pub fn more(&mut self, files: &RunFiles) -> Vec<Line> {
        let mut lines = Vec::new();
        let (path, before) =
            (files.path(&self.product, &self.run), files.path_before(&self.product, &self.run));
        // The file that was read may have made room for a new one meanwhile; at the first call both are news.
        match (self.file, number(&before)) {
            (None, Some(_)) => _ = take(&before, 0, &mut lines),
            (Some((known, read)), Some(now)) if known == now && number(&path) != Some(known) => {
                let _ = take(&before, read, &mut lines);
            }
            _ => {}
        }
        let present = number(&path);
        let from = match (self.file, present) {
            (Some((known, read)), Some(now)) if known == now => read,
            _ => 0,
        };
        if let (Some(number), Some(read)) = (present, take(&path, from, &mut lines)) {
            self.file = Some((number, read));
        }
        lines
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|about| about.ino())
}

/// Reads whole lines from a place on; returns up to where.
fn take(path: &Path, from: u64, lines: &mut Vec<Line>) -> Option<u64> {
    let mut file = File::open(path).ok()?;
    // A number may come again with another file: what is shorter than what was read is that.
    let from = if file.metadata().ok()?.len() < from { 0 } else { from };
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    lines.extend(text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()));
    Some(from + whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_comes_once_across_files_and_halves() {
        let home = tempfile::tempdir().expect("a folder");
        let files = RunFiles::of(home.path());
        let product: ProductId = "shop/orders".parse().expect("an id");
        let text = |n: u32| {
            format!(
                "{{\"at\":\"2026-11-30T00:00:00.{n:03}Z\",\"level\":\"info\",\"run\":\"r\",\"product\":\"shop/orders\",\"message\":\"{n}\"}}\n"
            )
        };
        let mut tail = Tail::new(product.clone(), "r".to_owned());
        assert_eq!(tail.more(&files), [], "nobody has said anything");
        let mut seen = Vec::new();
        for n in 0..100 {
            let line = text(n);
            let (first, second) = line.split_at(17);
            // So many to a file that both kinds of turn come up: within a file, and to the next one.
            files.append(&product, "r", first, 400).expect("written");
            seen.extend(tail.more(&files));
            files.append(&product, "r", second, 100_000).expect("written");
            if n % 3 != 0 {
                seen.extend(tail.more(&files));
            }
        }
        seen.extend(tail.more(&files));
        let numbers: Vec<String> = seen.into_iter().map(|line| line.message).collect();
        assert_eq!(numbers, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        // Who comes late is told what is still there.
        let late = Tail::new(product, "r".to_owned()).more(&files);
        assert_eq!(late.last().map(|line| line.message.as_str()), Some("99"));
        assert!(late.len() > 2 && late.len() < 100);
    }
}
