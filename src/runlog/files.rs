//! The files, and for how long they are kept.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hydromesh_core::ids::ProductId;

use super::Line;

/// Bytes of one file; a run has at most two, and loses its oldest lines when it says more.
pub(super) const MOST_BYTES: u64 = 256 << 10;
/// How long a run's lines are kept after its last one.
pub(super) const KEPT: Duration = Duration::from_hours(14 * 24);
/// Bytes of all files together: beyond it the oldest go first, however young they are.
pub(super) const MOST_IN_ALL: u64 = 512 << 20;

const ENDING: &str = ".jsonl";
/// The ending of the file before the present one.
const BEFORE: &str = ".before";

/// The files of a state folder.
#[derive(Debug, Clone)]
pub struct RunFiles {
    root: PathBuf,
}

impl RunFiles {
    /// Returns the files of a state folder; none need to be there.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self { root: state.join("logs") }
    }

    /// Returns where the present lines of a run are.
    pub(super) fn path(&self, product: &ProductId, run: &str) -> PathBuf {
        self.folder(product).join(format!("{run}{ENDING}"))
    }

    /// Returns where the lines before those are.
    pub(super) fn path_before(&self, product: &ProductId, run: &str) -> PathBuf {
        self.folder(product).join(format!("{run}{BEFORE}"))
    }

    fn folder(&self, product: &ProductId) -> PathBuf {
        self.root.join(product.domain.as_str()).join(product.name.as_str())
    }

    /// Appends text to the lines of a run by one write, making room by giving up the oldest lines.
    ///
    /// # Errors
    /// When the disk takes nothing.
    pub(super) fn append(&self, product: &ProductId, run: &str, text: &str, most: u64) -> io::Result<()> {
        let path = self.path(product, run);
        let open = || File::options().create(true).append(true).open(&path);
        let mut file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(self.folder(product))?;
                open()?
            }
            opened => opened?,
        };
        if file.metadata()?.len().saturating_add(text.len() as u64) > most {
            fs::rename(&path, self.path_before(product, run))?;
            file = open()?;
        }
        file.write_all(text.as_bytes())
    }

    /// Returns the products that have lines.
    #[must_use]
    pub fn products(&self) -> Vec<ProductId> {
        let domains = names(&self.root);
        let products = domains.iter().flat_map(|domain| {
            names(&self.root.join(domain))
                .into_iter()
                .filter_map(move |name| format!("{domain}/{name}").parse().ok())
        });
        products.collect()
    }

    /// Returns the runs of a product that have lines, oldest first: their numbers only rise.
    #[must_use]
    pub fn runs(&self, product: &ProductId) -> Vec<String> {
        let mut runs: Vec<String> = names(&self.folder(product))
            .iter()
            .filter_map(|name| name.strip_suffix(ENDING))
            .map(str::to_owned)
            .collect();
        runs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        runs
    }

    /// Returns what a run said, oldest first. What is torn or of another version is passed over.
    #[must_use]
    pub fn read(&self, product: &ProductId, run: &str) -> Vec<Line> {
        let mut lines = Vec::new();
        for path in [self.path_before(product, run), self.path(product, run)] {
            let Ok(bytes) = fs::read(path) else { continue };
            lines.extend(
                String::from_utf8_lossy(&bytes).lines().filter_map(|line| serde_json::from_str(line).ok()),
            );
        }
        // Control and a worker may have been a moment out of step.
        lines.sort_by(|a: &Line, b: &Line| a.at.cmp(&b.at));
        lines
    }

    /// Returns the trace of a run, if one was recorded.
    #[must_use]
    pub fn trace(&self, product: &ProductId, run: &str) -> Option<String> {
        self.read(product, run).into_iter().find_map(|line| line.trace)
    }

    /// Removes what is older than `kept` at `now`, then the oldest until all files have at most `most` bytes. Returns how many
    /// files went.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(super) fn sweep(&self, now: SystemTime, kept: Duration, most: u64) -> io::Result<usize> {
        let mut all: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for product in self.products() {
            let folder = self.folder(&product);
            for name in names(&folder) {
                let path = folder.join(name);
                // A file may go at any moment: another process sweeps too.
                let Ok(about) = fs::metadata(&path) else { continue };
                all.push((about.modified()?, about.len(), path));
            }
        }
        all.sort();
        let mut bytes: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
        let mut gone = 0;
        for (at, size, path) in all {
            let old = now.duration_since(at).is_ok_and(|age| age > kept);
            if !old && bytes <= most {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => gone += 1,
            }
            bytes = bytes.saturating_sub(size);
        }
        Ok(gone)
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runlog::Level;

    fn line(n: u32) -> Line {
        Line {
            at: super::super::line::stamp(i64::from(n)),
            level: Level::Info,
            run: "run-00000001".to_owned(),
            product: "shop/orders".to_owned(),
            pipeline: String::new(),
            attempt: 1,
            event: None,
            message: format!("line {n}"),
            fields: serde_json::Map::new(),
            trace: None,
        }
    }

    fn text(line: &Line) -> String {
        format!("{}\n", serde_json::to_string(line).expect("JSON"))
    }

    #[test]
    fn a_run_that_says_too_much_loses_its_oldest_lines() {
        let home = tempfile::tempdir().expect("a folder");
        let (files, product) = (RunFiles::of(home.path()), "shop/orders".parse().expect("an id"));
        assert_eq!(files.read(&product, "run-00000001"), []);
        for n in 0..1_000 {
            files.append(&product, "run-00000001", &text(&line(n)), 2_000).expect("written");
        }
        let kept = files.read(&product, "run-00000001");
        assert_eq!(kept.last(), Some(&line(999)));
        assert!(kept.len() > 10 && kept.len() < 40, "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[0].at < pair[1].at), "without a gap");
        let bytes: u64 = [files.path(&product, "run-00000001"), files.path_before(&product, "run-00000001")]
            .map(|path| fs::metadata(path).expect("there").len())
            .iter()
            .sum();
        assert!(bytes <= 4_000, "{bytes}");
        assert_eq!(
            (files.products(), files.runs(&product)),
            (vec![product], vec!["run-00000001".to_owned()])
        );
    }

    #[test]
    fn torn_lines_are_passed_over() {
        let home = tempfile::tempdir().expect("a folder");
        let (files, product) = (RunFiles::of(home.path()), "shop/orders".parse().expect("an id"));
        let text = format!("{}{}\u{0}\n\n{}", text(&line(1)), &text(&line(2))[..20], text(&line(3)));
        files.append(&product, "run-00000001", &text, MOST_BYTES).expect("written");
        assert_eq!(files.read(&product, "run-00000001"), [line(1), line(3)]);
    }

    #[test]
    fn the_oldest_go_first_by_age_and_by_room() {
        let home = tempfile::tempdir().expect("a folder");
        let (files, product): (_, ProductId) =
            (RunFiles::of(home.path()), "shop/orders".parse().expect("an id"));
        let now = SystemTime::now();
        for n in 1..=4_u64 {
            let run = format!("run-{n}");
            files.append(&product, &run, &"x".repeat(100), MOST_BYTES).expect("written");
            let file = File::options().append(true).open(files.path(&product, &run)).expect("open");
            file.set_modified(now - Duration::from_hours(24 * (4 - n))).expect("set");
        }
        assert_eq!(files.sweep(now, Duration::from_hours(60), MOST_IN_ALL).expect("swept"), 1);
        assert_eq!(files.runs(&product), ["run-2", "run-3", "run-4"]);
        assert_eq!(files.sweep(now, Duration::from_hours(60), 250).expect("swept"), 1);
        assert_eq!(files.runs(&product), ["run-3", "run-4"]);
        assert_eq!(files.sweep(now, KEPT, MOST_IN_ALL).expect("swept"), 0);
    }
}
