//! A hint that the repository has moved: the next look at it happens at once.
//!
//! It is a file of the state folder, so it makes no difference which process was told. It says nothing but that it is
//! there: any number of hints before a look are one hint, and one that comes during a look is there for the next.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the file is looked for. It is also the least pause between two looks at the repository, whoever floods us.
const LOOK: Duration = Duration::from_millis(200);

/// Hints of one state folder.
#[derive(Debug, Clone)]
pub struct Hints(PathBuf);

impl Hints {
    /// Returns the hints of a state folder.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self(state.join("look"))
    }

    /// Leaves a hint.
    ///
    /// # Errors
    /// When the file cannot be made; the poll goes on without it.
    pub fn give(&self) -> io::Result<()> {
        fs::File::create(&self.0).map(drop)
    }

    /// Waits for a hint and takes it.
    pub(super) async fn taken(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if fs::remove_file(&self.0).is_ok() {
                return;
            }
        }
    }
}
