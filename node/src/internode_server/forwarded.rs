//! Reads that another node sends on: what they give, and their end when nobody waits for it any more.
use std::{future::Future, io};

use node_db::{Origin, Part};
use tokio::time::timeout;

use crate::{
    identity::name_of,
    internode::{
        client::{Answer, TRANSFER_IDLE_TIMEOUT},
        wire::{Connection, Hello},
    },
    store::{Credentials, ReadAnswer, SIGN_OF_LIFE_INTERVAL, Served, StoreError},
};

/// Pieces come only to whoever asked for them.
pub(super) fn whole(answered: ReadAnswer) -> Result<Served, StoreError> {
    match answered {
        ReadAnswer::Whole(served) => Ok(served),
        ReadAnswer::Parts(_) => Err(StoreError::Refused("the result came in pieces".into())),
    }
}

/// Sends what a read gave, and ends the read when the other side closes the connection or takes nothing for too long.
pub(super) async fn send_read(
    connection: &mut Connection,
    answered: Result<ReadAnswer, StoreError>,
) -> io::Result<()> {
    let mut streamed = match answered {
        Ok(ReadAnswer::Whole(served)) => return connection.send(&Answer::Served(Ok(served))).await,
        Ok(ReadAnswer::Parts(streamed)) => streamed,
        Err(e) => return connection.send(&Answer::Served(Err(e))).await,
    };
    connection.send(&Answer::Parts).await?;
    loop {
        let next = timeout(SIGN_OF_LIFE_INTERVAL, streamed.next());
        let part = match unless_gone(connection, next).await {
            Some(Ok(part)) => part,
            Some(Err(_elapsed)) => Part::Rows(Vec::new()),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let sent = timeout(TRANSFER_IDLE_TIMEOUT, connection.send(&part));
        sent.await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if matches!(part, Part::Done { .. }) {
            return Ok(());
        }
    }
}

/// Whom a forwarded read is for, as far as it is known here.
pub(super) fn via(hello: &Hello, credentials: &Option<Credentials>) -> Origin {
    Origin {
        client: None,
        user: credentials.as_ref().map(|given| given.username.clone()),
        via: Some(name_of(&hello.from).to_owned()),
    }
}

/// What `work` gives, or `None`, with the work dropped, as soon as the other side has closed the connection.
pub(super) async fn unless_gone<T>(
    connection: &mut Connection,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = connection.closed() => None,
    }
}
