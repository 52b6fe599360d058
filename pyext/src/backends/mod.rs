//! What knows an event loop's own objects: tasks, and the coroutines inside them; and which loop
//! begins to run.

pub(crate) mod asyncio;
pub(crate) mod running_loop;
pub(crate) mod task;
