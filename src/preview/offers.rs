//! What the previews of an environment that live have made themselves, for its steps to look at.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hydromesh_core::ids::PortId;
use hydromesh_core::ledger::{LedgerState, Offer};

use super::note::{Name, Note};
use super::shelf::Shelf;
use crate::lake::{Lake, LakeError};
use crate::replay::fold;
use crate::store::{OpenMode, Place, Store, StoreError};

/// Where a preview's lake is in its folder.
const LAKE: &str = "lake";

/// The previews of one state folder, as steps see them. What was read of a preview is remembered until its ledger goes on.
#[derive(Debug)]
pub struct Offers {
    shelf: Shelf,
    known: Mutex<BTreeMap<Name, Known>>,
}

/// Lengths and times of the files of a ledger.
type Stamps = [Option<(u64, SystemTime)>; 2];

/// What was read of a preview.
#[derive(Debug, Clone)]
struct Known {
    mark: Mark,
    stamps: Stamps,
    offer: Arc<Offer>,
}

/// Tells a preview from another one of the same name, begun again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    created_ms: i64,
    device: u64,
    inode: u64,
}

/// A preview that lives.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its name.
    pub name: Name,
    /// What it has published itself.
    pub offer: Arc<Offer>,
    folder: PathBuf,
    mark: Mark,
}

impl Offers {
    /// Returns the previews of a state folder.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self { shelf: Shelf::of(state), known: Mutex::default() }
    }

    /// Returns the previews of an environment over its lake that have something of a port, the newest first.
    ///
    /// One that cannot be read, or is being removed, offers nothing.
    pub async fn live(&self, environment: &str, lake: &Path, port: &PortId, now_ms: i64) -> Vec<Live> {
        let shelf = self.shelf.clone();
        let (environment, lake) = (environment.to_owned(), lake.to_owned());
        let marked = move || {
            let over = |it: &Note| it.parent == environment && it.expires_ms > now_ms;
            let notes = shelf.notes().into_iter().filter(over);
            let marked = notes.filter_map(|note| {
                let folder = shelf.folder(&note.preview);
                // Its lake lies over the parent's as it was; another one has other versions.
                let below = super::lake_below(&folder)?.canonicalize().ok()?;
                let mark = mark(&folder, &note)?;
                (below == lake).then_some((note.preview, folder, mark))
            });
            marked.collect::<Vec<_>>()
        };
        let mut marked = tokio::task::spawn_blocking(marked).await.unwrap_or_default();
        marked.sort_by(|left, right| (right.2.created_ms, &left.0).cmp(&(left.2.created_ms, &right.0)));
        let mut live = Vec::new();
        for (name, folder, mark) in marked {
            match self.offer(&name, &folder, mark).await {
                Ok(offer) if offer.has(port) => live.push(Live { name, offer, folder, mark }),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%name, "a preview offers nothing: {}", crate::text::chain(&error));
                }
            }
        }
        live
    }

    async fn offer(&self, name: &Name, folder: &Path, mark: Mark) -> Result<Arc<Offer>, StoreError> {
        let place = Place::in_folder(folder);
        // Before it is read: what is written meanwhile is seen by the next look.
        let stamps = stamps(&place);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(known) = known.filter(|known| (known.mark, &known.stamps) == (mark, &stamps)) {
            return Ok(known.offer);
        }
        let store = Store::open_at(&place, OpenMode::ReadOnly).await?;
        let ledger = folded(&store).await;
        store.close().await;
        let offer = Arc::new(ledger?.offer());
        let known = Known { mark, stamps, offer: Arc::clone(&offer) };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), known);
        Ok(offer)
    }
}

async fn folded(store: &Store) -> Result<LedgerState, StoreError> {
    let mut ledger = LedgerState::default();
    while fold(store, &mut ledger).await? {}
    Ok(ledger)
}

/// Returns what changes with every fact that is written to a ledger, at the price of two looks at files: opening it costs more.
fn stamps(place: &Place) -> Stamps {
    let Place::File(path) = place else { return Stamps::default() };
    let log = path.with_extension("db-wal");
    [path, &log].map(|path| std::fs::metadata(path).ok().and_then(|it| Some((it.len(), it.modified().ok()?))))
}

impl Live {
    /// Opens its lake over its parent's, to be read.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn lake(&self, below: &Path) -> Result<Lake, LakeError> {
        Ok(Lake::found(self.folder.join(LAKE)).await?.over(below))
    }

    /// Returns whether the preview is still the one whose ledger was read: what was read of its lake since is its own.
    pub async fn is_still(&self) -> bool {
        let (folder, known) = (self.folder.clone(), self.mark);
        let same = move || Note::read(&folder).and_then(|note| mark(&folder, &note)) == Some(known);
        tokio::task::spawn_blocking(same).await.unwrap_or_default()
    }
}

fn mark(folder: &Path, note: &Note) -> Option<Mark> {
    let about = std::fs::symlink_metadata(folder).ok().filter(std::fs::Metadata::is_dir)?;
    Some(Mark { created_ms: note.created_ms, device: about.dev(), inode: about.ino() })
}
