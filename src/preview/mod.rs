//! Previews of an environment: what marks their folders, and how they end.
//!
//! A preview is the folder `previews/NAME` of its parent's state folder, with a ledger and a lake of its own and the note
//! `preview.json`. Only a folder with a note that says that it is this one is ever removed, and no link is followed.

mod note;
mod offers;
mod shelf;

pub use note::{Name, NameError, Note, is_preview, lake_below};
pub use offers::{Live, Offers};
pub use shelf::{PreviewError, Shelf, keep_tidy};
