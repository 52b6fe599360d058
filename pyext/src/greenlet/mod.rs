//! Real `greenlet` in the same process (SQLAlchemy, gevent, Playwright).
//!
//! greenlet takes a thread's C stack for one piece. It copies slices of it to the heap and back to the
//! *same addresses*, and what is current is one greenlet for each thread (`TStackState.cpp`,
//! `TThreadState.hpp` in its sources). A fiber's stack is another piece, of which it knows nothing.
//!
//! # Invariant
//!
//! **greenlet switches on the thread's own stack, and nowhere else.** All the ways into a switch are
//! met (`entries.rs`), and code that is on a fiber goes back to the stack that resumed the fiber,
//! down to the thread's own, and has the switch done there (`switches.rs`). Hence:
//!
//! * No fiber has slices of greenlets on its stack: any fiber can serve any portal, step by step.
//! * While a fiber runs, the greenlet is current that it was resumed in, and all of that one's part of
//!   the thread's stack is in place: the frames that resumed the fiber, to which it will go back.
//! * Greenlets that are begun on a fiber live on the thread's stack, where all code of the thread can
//!   switch to them, whatever has become of the fiber.
//! * While another greenlet runs, what is in the frames of those that do not may be on the heap. What
//!   others have pointers to is kept elsewhere: on fibers' stacks, which do not move, or allocated.
//!
//! | file | owns |
//! |---|---|
//! | `original.rs` | greenlet's own functions |
//! | `calls.rs` | a thread's calls of those that have not returned, and who waits for one |
//! | `answer.rs` | what somebody who has waited on behalf of a greenlet has for it |
//! | `switches.rs` | switches on behalf of fibers |
//! | `entries.rs` | our functions in the places of greenlet's |
//! | `look.rs` | whether greenlet is loaded |
//! | `awaiting.rs` | `await_` in a greenlet |

mod answer;
mod awaiting;
mod calls;
mod entries;
mod look;
mod original;
mod switches;

pub(crate) use answer::Answer;
pub(crate) use awaiting::{drive, in_greenlet, is_provider};
pub(crate) use calls::{inside, wait};
pub(crate) use look::{init, is_replaced, look, meet_greenlet, note_ours, note_replaced};
pub(crate) use original::{is_away, is_loaded};
