//! What knows an event loop's own objects: tasks, and the coroutines inside them.

pub(crate) mod asyncio;
pub(crate) mod task;
