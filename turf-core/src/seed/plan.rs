//! What a forked worker is told: the bytes that the seed passes on without reading them.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sandbox::plan::{ListenAddress, ProcessPlan};

/// The plan of one worker. Its script is `process.args[1]`, resolved inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPlan {
    /// How the worker's process is dressed before user code runs.
    pub process: ProcessPlan,
    /// Where the worker listens in its own network namespace, besides the listeners it inherits.
    /// If both are empty it listens on `tcp://0.0.0.0:$PORT`.
    pub listen: Vec<ListenAddress>,
    /// Limits that a supervisor sets.
    pub limits: Option<WorkerLimits>,
}

/// What a pool asks of its workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLimits {
    /// Milliseconds a handler has for the head of its response, also one that never yields.
    pub request_timeout_ms: u64,
    /// Most requests in flight; 0 for no limit.
    pub concurrency: u32,
    /// Requests after which the worker ends; 0 for no limit.
    pub max_requests: u64,
    /// Milliseconds after which a request without an answer is told of; 0 for never.
    pub slow_ms: u64,
}

impl WorkerPlan {
    /// The bytes for [`Fork::plan`](super::client::Fork::plan).
    pub fn encode(&self) -> Result<Vec<u8>> {
        postcard::to_allocvec(self)
            .map_err(|error| Error::invalid("the worker's plan", format!("cannot be encoded: {error}")))
    }

    /// What [`WorkerPlan::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<WorkerPlan> {
        postcard::from_bytes(bytes)
            .map_err(|error| Error::invalid("the worker's plan", format!("cannot be decoded: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_bytes_and_a_cut_one_is_refused() {
        let process = ProcessPlan { args: vec!["aworker".into(), "/app/w.js".into()], ..Default::default() };
        let listen =
            vec![ListenAddress::Tcp(([127, 0, 0, 1], 8080).into()), ListenAddress::Unix("/s".into())];
        let plan = WorkerPlan { process, listen, limits: None };
        let bytes = plan.encode().unwrap();
        assert_eq!(WorkerPlan::decode(&bytes).unwrap(), plan);
        for length in 0..bytes.len() {
            assert!(WorkerPlan::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
