//! Tasks that end with their owner.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// A task that is aborted when this is dropped.
pub(crate) struct OwnedTask(JoinHandle<()>);

impl OwnedTask {
    pub(crate) fn spawn(on: &Handle, future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(on.spawn(future))
    }

    /// Ends it and waits until it is gone.
    pub(crate) async fn end(mut self) {
        self.0.abort();
        // Cancelled is what was asked for; a panic was reported already.
        drop((&mut self.0).await);
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) {
        drop((&mut self.0).await);
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
