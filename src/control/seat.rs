//! Takes the controller's seat: opens the ledger where the environment says, waits to lead it, and brings along what it held
//! when it was elsewhere.

use std::time::Duration;

use hydromesh_core::model::Environment;
use tokio_util::sync::CancellationToken;

use super::error::UpError;
use super::run::UpOptions;
use crate::outage::Outage;
use crate::store::{Lease, OpenMode, Place, Store, StoreError, follow};

/// How long a lease lasts until the loop renews it: catching up with a long ledger, or bringing it along, takes its time. A
/// process that dies meanwhile is noticed all the same.
pub(super) const START_MS: i64 = 120_000;
/// How often one that stands by looks whether it may lead.
const STAND_BY: Duration = Duration::from_secs(1);

/// The ledger, and the right to write it.
pub(super) struct Seat {
    pub store: Store,
    pub lease: Lease,
    /// Somebody else led before.
    pub waited: bool,
}

/// Takes the seat. With a ledger on a server this waits until nobody else leads, and for the server; with one in a file it
/// does not, for two controllers on one folder are a mistake. Returns nothing when asked to end meanwhile.
///
/// # Errors
/// When the ledger cannot be used, or what it held elsewhere cannot be brought along.
pub(super) async fn take(
    options: &UpOptions,
    settings: &Environment,
    shutdown: &CancellationToken,
) -> Result<Option<Seat>, UpError> {
    let (folder, name) = (&options.state, &options.environment);
    let place = Place::of(folder, name, &settings.state)?;
    let remember = || {
        Place::remember(folder, name, &settings.state).map_err(|source| UpError::Io {
            action: format!("note in {} where the ledger is", folder.display()),
            source,
        })
    };
    let before = Place::found(folder)?;
    if before.is_none() {
        // The verbs find it while this one stands by.
        remember()?;
    }
    let before = before.filter(|before| *before != place);
    let owner = owner();
    let mut seat = match place {
        Place::File(_) => lead(&place, &owner).await?,
        Place::Postgres { .. } => match stand_by(&place, &owner, shutdown).await? {
            Some(seat) => seat,
            None => return Ok(None),
        },
    };
    if let Some(before) = before {
        seat.lease = bring_along(&seat, &before).await?;
    }
    remember()?;
    Ok(Some(seat))
}

pub(super) async fn lead(place: &Place, owner: &str) -> Result<Seat, StoreError> {
    let store = Store::open_at(place, OpenMode::ReadWrite).await?;
    match lease(&store, owner).await {
        Ok(lease) => Ok(Seat { store, lease, waited: false }),
        Err(error) => {
            store.close().await;
            Err(error)
        }
    }
}

/// Gives the lease back. All facts are written by then, so one that cannot be given back for now just runs out.
pub(super) async fn leave(store: &Store, lease: Lease) -> Result<(), StoreError> {
    match store.release(lease).await {
        Err(error) if error.is_transient() => {
            tracing::warn!("the lease is not given back and runs out: {}", crate::text::chain(&error));
            Ok(())
        }
        released => released,
    }
}

async fn lease(store: &Store, owner: &str) -> Result<Lease, StoreError> {
    store.lease(owner, store.lease_clock_ms().await?, START_MS).await
}

async fn stand_by(
    place: &Place,
    owner: &str,
    shutdown: &CancellationToken,
) -> Result<Option<Seat>, StoreError> {
    let mut outage = Outage::default();
    let mut waited = false;
    loop {
        let tried = tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            tried = lead(place, owner) => tried,
        };
        match tried {
            Ok(seat) => {
                if waited {
                    tracing::warn!("leads from here on");
                }
                return Ok(Some(Seat { waited, ..seat }));
            }
            Err(StoreError::LeaseHeld { owner, .. }) => {
                waited = true;
                if outage.begins(&owner) {
                    tracing::warn!("stands by: the controller {owner} leads");
                }
            }
            Err(error) if error.is_transient() => {
                waited = true;
                let why = crate::text::chain(&error);
                if outage.begins(&why) {
                    tracing::warn!("waits for the ledger: {why}");
                }
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(STAND_BY) => {}
        }
    }
}

/// Copies what the ledger held at another place, whose lease is taken first: nothing is added there any more.
async fn bring_along(seat: &Seat, before: &Place) -> Result<Lease, StoreError> {
    // A place that cannot be reached is not an empty one: only its facts say how the story went on.
    let old = Store::open_at(before, OpenMode::ReadWrite)
        .await
        .map_err(|error| StoreError::Left { why: crate::text::chain(&error) })?;
    let lease = match lease(&old, &seat.lease.owner).await {
        Ok(above) => {
            let before = seat.store.head().await?;
            let lease = follow(&*seat.store, seat.lease.clone(), &*old, &above).await?;
            old.release(above).await?;
            let facts = seat.store.head().await? - before;
            tracing::warn!(facts, "the ledger has moved; what it held before is brought along");
            Ok(lease)
        }
        // The same database under another address.
        Err(StoreError::LeaseHeld { owner, .. }) if owner == seat.lease.owner => Ok(seat.lease.clone()),
        Err(error) => Err(error),
    };
    old.close().await;
    lease
}

/// Names this process: machine, process id, and what no other process ever had.
pub(super) fn owner() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = crate::text::line(host.trim(), 100);
    format!("{host}:{}:{}", std::process::id(), uuid::Uuid::new_v4())
}
