//! The environment that this one comes after: which commits were healthy there, read from its ledger.

use std::path::{Path, PathBuf};

use hydromesh_core::ledger::{LedgerState, SeenCommit, Unproven};
use hydromesh_core::model::{After, Environment};
use serde::{Deserialize, Serialize};

use super::error::UpError;
use super::run::UpOptions;
use crate::clock::{Clock, rfc3339};
use crate::disk;
use crate::replay::fold;
use crate::store::{OpenMode, Place, PlaceError, Store, StoreError};

/// The file in a state folder that says what its environment waits for.
const NOTE: &str = "after.json";

/// Why the environment before cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AheadError {
    /// Where its ledger is.
    #[error("the ledger of environment {environment} cannot be found")]
    Place {
        /// The environment.
        environment: String,
        /// Why.
        source: PlaceError,
    },
    /// Its ledger.
    #[error("the ledger of environment {environment} cannot be read")]
    Store {
        /// The environment.
        environment: String,
        /// Why.
        source: StoreError,
    },
}

/// Where the ledger of the environment before is.
#[derive(Debug)]
enum Whereabouts {
    /// On a server that all environments of the mesh share.
    Known(Place),
    /// Where its state folder says, once it does.
    Folder(PathBuf),
}

/// The environment before, and what is known of it.
#[derive(Debug)]
pub(super) struct Ahead {
    after: After,
    place: Whereabouts,
    store: Option<Store>,
    known: LedgerState,
    clock: Clock,
    /// State folder of this environment.
    state: PathBuf,
    /// What was noted there last.
    noted: Option<Waiting>,
}

/// What an environment waits for that comes after another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The environment before.
    pub environment: String,
    /// Why its newest commit does not come here yet, for people.
    pub why: String,
}

impl Waiting {
    /// Returns what the environment of a state folder waits for, if its controller noted that.
    #[must_use]
    pub fn of(state: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(state.join(NOTE)).ok()?).ok()
    }
}

impl Ahead {
    /// Returns the environment before, if there is one.
    ///
    /// # Errors
    /// When nobody says where its ledger is.
    pub fn of(
        options: &UpOptions,
        settings: &Environment,
        before: Option<&Environment>,
    ) -> Result<Option<Self>, UpError> {
        let Some((after, before)) = settings.after.clone().zip(before) else { return Ok(None) };
        let place = match (&options.after_state, &before.state) {
            (Some(folder), _) => Whereabouts::Folder(folder.clone()),
            (None, hydromesh_core::model::StateKind::Sqlite) => {
                return Err(UpError::Before { name: options.environment.clone(), before: after.environment });
            }
            (None, state) => Whereabouts::Known(Place::of(&options.state, &after.environment, state)?),
        };
        let (store, known) = Default::default();
        let (clock, state) = (options.clock.clone(), options.state.clone());
        // What the last controller waited for may be over.
        let noted = Waiting::of(&state);
        Ok(Some(Self { after, place, store, known, clock, state, noted }))
    }

    /// Returns the commits that may be deployed here, newest first, and notes what the newest one waits for.
    ///
    /// # Errors
    /// When its ledger cannot be read now.
    pub async fn proven(&mut self) -> Result<Vec<String>, AheadError> {
        if let Err(error) = self.read().await {
            // The next look opens it anew: its controller may have been moved to another place.
            self.close().await;
            return Err(error);
        }
        let now_ms = self.clock.now_ms();
        self.note(self.waiting(now_ms));
        let proven = self.known.proven(self.after.r#for, now_ms);
        Ok(proven.map(|seen| seen.commit.clone()).collect())
    }

    /// Returns what is waited for, if the newest commit there may not be deployed here.
    pub fn waiting(&self, now_ms: i64) -> Option<Waiting> {
        let why = match self.known.newest_unproven(self.after.r#for, now_ms) {
            Some((seen, why)) => words(seen, &why),
            None if self.known.commits.is_empty() => "no commit was seen there yet".to_owned(),
            None => return None,
        };
        Some(Waiting { environment: self.after.environment.clone(), why })
    }

    /// Refuses to go on when nothing may be deployed, for those who do not wait.
    ///
    /// # Errors
    /// [`UpError::Unproven`], and as [`Ahead::proven`].
    pub async fn must_have_proven(&mut self, name: &str) -> Result<(), UpError> {
        if !self.proven().await?.is_empty() {
            return Ok(());
        }
        let waiting = self.waiting(self.clock.now_ms());
        let why = waiting.map_or_else(|| "no commit was healthy yet".to_owned(), |it| it.why);
        Err(UpError::Unproven { name: name.to_owned(), before: self.after.environment.clone(), why })
    }

    async fn read(&mut self) -> Result<(), AheadError> {
        let environment = || self.after.environment.clone();
        let store = match &self.store {
            Some(store) => store,
            None => {
                let place = match &self.place {
                    Whereabouts::Known(place) => Some(place.clone()),
                    Whereabouts::Folder(folder) => Place::found(folder)
                        .map_err(|source| AheadError::Place { environment: environment(), source })?,
                };
                let Some(place) = place else { return Ok(()) };
                match Store::open_at(&place, OpenMode::ReadOnly).await {
                    Ok(store) => self.store.insert(store),
                    // Its controller was never started, so nothing was healthy there.
                    Err(StoreError::Absent { .. }) => return Ok(()),
                    Err(source) => return Err(AheadError::Store { environment: environment(), source }),
                }
            }
        };
        loop {
            match fold(store, &mut self.known).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(source) => return Err(AheadError::Store { environment: environment(), source }),
            }
        }
    }

    async fn close(&mut self) {
        self.known = LedgerState::default();
        if let Some(store) = self.store.take() {
            store.close().await;
        }
    }

    /// Notes what is waited for, and says it once.
    fn note(&mut self, waiting: Option<Waiting>) {
        if self.noted == waiting {
            return;
        }
        let path = self.state.join(NOTE);
        let written = match &waiting {
            Some(waiting) => {
                tracing::info!("what comes waits for environment {}: {}", waiting.environment, waiting.why);
                serde_json::to_vec_pretty(waiting)
                    .map_err(std::io::Error::from)
                    .and_then(|text| disk::replace(&path, &text))
            }
            None => std::fs::remove_file(&path),
        };
        match written {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("could not note in {} what is waited for: {error}", path.display());
            }
            _ => self.noted = waiting,
        }
    }
}

/// Says why a commit is not proven, for people.
fn words(seen: &SeenCommit, why: &Unproven) -> String {
    let short: String = seen.commit.chars().take(7).collect();
    let why = match why {
        Unproven::Undecided => "is being decided about there".to_owned(),
        Unproven::Refused(outcome) => format!("is {} there", outcome.word()),
        Unproven::Young(until_ms) => format!("has to stay healthy there until {}", rfc3339(*until_ms)),
        Unproven::Alert(alert) => format!("is applied there, with alert {alert} open"),
        Unproven::Failed(product) => format!("is applied there, and a step of {product} failed"),
    };
    format!("{short} {why}")
}
