//! Reader threads: started when needed, ended when idle.
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    run::run_job,
    state::{ActiveRead, Activity, Job, Phase, Reader, Readers, State, lock},
};
use crate::{
    readers::{
        control::{Control, install_progress_handler},
        lanes::{Lane, SHORT},
    },
    sqlite::{connection::STACK_BYTES, error::message},
    types::Origin,
};

/// Threads beyond the permanent ones end, and close their connection, after this time without work.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

impl Readers {
    /// Starts the permanent threads.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn start(&self) -> std::io::Result<()> {
        for _ in 0..self.settings.slots {
            lock(&self.state).threads += 1;
            self.spawn()?;
        }
        Ok(())
    }

    /// Starts a thread that has already been counted.
    pub(super) fn spawn(&self) -> std::io::Result<()> {
        let started = match self.own.upgrade() {
            Some(readers) => thread::Builder::new()
                .name("db-reader".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || readers.serve())
                .map(drop),
            None => Ok(()),
        };
        if started.is_err() {
            lock(&self.state).threads -= 1;
        }
        started
    }

    /// The main loop of a reader thread.
    fn serve(self: Arc<Self>) {
        let mut reader: Option<Reader> = None;
        while let Some((job, id)) = self.next_job(&mut reader) {
            if reader.is_none() {
                match Reader::open(&self.settings) {
                    Ok(opened) => reader = Some(opened),
                    Err(error) => {
                        tracing::error!(error = %message(&error), "cannot open the database for reading")
                    }
                }
            }
            let usable = match &mut reader {
                Some(held) => held.renew(&self.settings).is_ok(),
                None => false,
            };
            self.run(job, id, reader.as_mut().filter(|_| usable));
            self.finished(id);
        }
    }

    fn run(self: &Arc<Self>, job: Job, id: u64, reader: Option<&mut Reader>) {
        if let (Job::Read(job), Some(reader)) = (&job, &reader) {
            let interrupt = reader.conn.get_interrupt_handle();
            let mut state = lock(&self.state);
            if let Some(entry) = state.running.get_mut(&id) {
                entry.interrupt = Some(interrupt);
            }
            drop(state);
            job.control.begin_turn(SHORT);
        }
        let watched = match (&job, reader) {
            (Job::Read(job), Some(reader)) => self.watch(reader, id, &job.control).map(|()| reader),
            (Job::Classify { .. }, Some(reader)) => Some(reader),
            (_, None) => None,
        };
        run_job(self, id, job, watched.as_deref());
    }

    /// Makes a thread's connection check the control of its next read.
    fn watch(self: &Arc<Self>, reader: &mut Reader, id: u64, control: &Arc<Control>) -> Option<()> {
        let (readers, control) = (Arc::downgrade(self), Arc::clone(control));
        let must_stop = move || {
            control.must_stop()
                || (control.turn_is_over()
                    && readers
                        .upgrade()
                        .is_none_or(|readers| !readers.turn_over(id, &control)))
        };
        install_progress_handler(&mut reader.conn, must_stop).ok()
    }

    fn next_job(&self, reader: &mut Option<Reader>) -> Option<(Job, u64)> {
        let mut state = lock(&self.state);
        loop {
            let mut limit = Duration::MAX;
            match state.phase {
                Phase::Stopped => return self.leave(state, reader),
                Phase::Open => {
                    if state.lanes.free_slots() > 0
                        && let Some(job) = state.jobs.pop_front()
                    {
                        if reader.is_none() {
                            state.connected += 1;
                        }
                        let lane = state.lanes.begin();
                        let id = state.enter(entry(&job, lane));
                        return Some((job, id));
                    }
                    if state.threads > self.settings.slots {
                        limit = IDLE_LIMIT;
                    }
                }
                Phase::Closing if reader.take().is_some() => {
                    state.connected -= 1;
                    self.quiet.notify_all();
                }
                Phase::Paused | Phase::Closing => {}
            }
            state.idle += 1;
            let timed_out;
            (state, timed_out) = if limit == Duration::MAX {
                let state = self.work.wait(state);
                (state.unwrap_or_else(PoisonError::into_inner), false)
            } else {
                let waited = self.work.wait_timeout(state, limit);
                let (state, result) = waited.unwrap_or_else(PoisonError::into_inner);
                (state, result.timed_out())
            };
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() && state.threads > self.settings.slots {
                return self.leave(state, reader);
            }
        }
    }

    /// Ends a thread.
    fn leave(
        &self,
        mut state: MutexGuard<'_, State>,
        reader: &mut Option<Reader>,
    ) -> Option<(Job, u64)> {
        if reader.take().is_some() {
            state.connected -= 1;
        }
        state.threads -= 1;
        drop(state);
        self.quiet.notify_all();
        None
    }
}

fn entry(job: &Job, lane: Lane) -> ActiveRead {
    let (what, origin, control) = match job {
        Job::Read(job) => (
            Activity::Read(Arc::clone(&job.read)),
            job.origin.clone(),
            Arc::clone(&job.control),
        ),
        Job::Classify { .. } => (Activity::Unlisted, Origin::default(), Control::new()),
    };
    ActiveRead {
        since: Instant::now(),
        control,
        lane,
        what,
        origin,
        detached: false,
        interrupt: None,
    }
}
