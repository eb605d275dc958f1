//! Work for the next turn of the loop: completions of operations and steps that
//! must not run inside the caller.

use std::collections::VecDeque;

use super::Action;

/// The queue, in order of arrival.
#[derive(Debug, Default)]
pub struct Tasks(VecDeque<Action>);

impl Tasks {
    /// Queues an action. It runs once, in order, with a microtask checkpoint after it.
    pub fn push(&mut self, action: Action) {
        self.0.push_back(action);
    }

    pub(super) fn take(&mut self) -> Option<Action> {
        self.0.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
