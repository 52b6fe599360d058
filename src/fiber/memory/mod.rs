//! Address space for stacks, in one file per platform with the same shape:
//!
//! * `Slot`: one stack's memory, `Copy`, with `usable()`, `record()`, `reserved()` and corosensei's
//!   `Stack`;
//! * `Arena`: makes slots (`carve`), gives their pages back to the system (`discard`), and frees
//!   all memory when dropped, by which time no slot may be in use.
//!
//! No slot ever leaves an arena without its guard pages in place.

mod geometry;
#[cfg(target_os = "linux")]
mod guard;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod mapping;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
pub(super) mod registry;
#[cfg(target_os = "linux")]
pub(super) use linux::{Arena, Slot};
#[cfg(target_os = "linux")]
pub(super) use mapping::page_size;

#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::{Arena, Slot};

pub use geometry::GuardPages;
pub(super) use geometry::{Geometry, RECORD_SIZE, RESERVE_ALIGNMENT};
