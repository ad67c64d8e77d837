//! The queue against writers that succeed, fail and refuse; time is the runtime's, paused.
use super::*;

type Script = dyn Fn(usize, &Request, &Caller) -> Result<Served, StoreError> + Send + Sync;

/// The writes that the writer received: the SQL of each and its user.
type Writes = Arc<Mutex<Vec<(Vec<String>, Option<String>)>>>;

struct Bench {
    queue: Queue,
    task: JoinHandle<()>,
    writes: Writes,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

fn bench(
    settings: QueueSettings,
    script: impl Fn(usize, &Request, &Caller) -> Result<Served, StoreError> + Send + Sync + 'static,
) -> Bench {
    let writes = Writes::default();
    let seen = Arc::clone(&writes);
    let script: Arc<Script> = Arc::new(script);
    let write = move |request: Request, caller: Caller| {
        let sql = request
            .statements
            .iter()
            .map(|statement| statement.sql.clone())
            .collect();
        let mut seen = seen.lock();
        let outcome = script(seen.len(), &request, &caller);
        seen.push((sql, caller.credentials.map(|given| given.username)));
        async move { outcome }
    };
    let metrics = Arc::new(Metrics::default());
    let stop = CancellationToken::new();
    let (queue, task) = Queue::start_with(write, settings, Arc::clone(&metrics), stop.clone());
    Bench {
        queue,
        task,
        writes,
        metrics,
        stop,
    }
}

impl Bench {
    fn sql(&self) -> Vec<Vec<String>> {
        self.writes
            .lock()
            .iter()
            .map(|(sql, _)| sql.clone())
            .collect()
    }
}

fn settings() -> QueueSettings {
    QueueSettings {
        capacity: 16,
        batch_size: 3,
        timeout: Duration::from_millis(50),
        transaction: false,
    }
}

fn one(sql: &str) -> Vec<Statement> {
    vec![Statement {
        sql: sql.to_owned(),
        parameters: Vec::new(),
    }]
}

fn served(error: Option<&str>) -> Served {
    Served {
        results: Vec::new(),
        error: error.map(str::to_owned),
        raft_index: Some(1),
        served_by: String::new(),
    }
}

fn user(name: &str) -> Option<Credentials> {
    Some(Credentials {
        username: name.to_owned(),
        password: String::new(),
    })
}

#[tokio::test(start_paused = true)]
async fn batches_by_number_and_by_time() {
    let bench = bench(settings(), |_, _, _| Ok(served(None)));
    let mut tickets = Vec::new();
    for sql in ["a", "b", "c", "d"] {
        tickets.push(bench.queue.push(one(sql), None).await.unwrap());
    }
    let numbers: Vec<i64> = tickets.iter().map(|ticket| ticket.sequence).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{numbers:?}"
    );
    for ticket in tickets {
        ticket.decided().await.unwrap().unwrap();
    }
    assert_eq!(bench.sql(), [vec!["a", "b", "c"], vec!["d"]]);
    assert_eq!(bench.metrics.get(Counter::QueueNumBatch), 1);
    assert_eq!(bench.metrics.get(Counter::QueueNumTimeout), 1);
    assert_eq!(
        bench.metrics.get(Counter::HttpQueuedExecutionsNumStmtsTx),
        4
    );
    assert_eq!(bench.queue.status().sequence_number, numbers[3]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_statements_only_waits_for_those_before_it() {
    let bench = bench(settings(), |_, _, _| Ok(served(None)));
    bench
        .queue
        .push(Vec::new(), None)
        .await
        .unwrap()
        .decided()
        .await
        .unwrap()
        .unwrap();
    assert!(bench.sql().is_empty());
    let _first = bench.queue.push(one("a"), None).await.unwrap();
    bench
        .queue
        .push(Vec::new(), None)
        .await
        .unwrap()
        .decided()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bench.sql(), [["a"]]);
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_leader_as_long_as_it_takes() {
    let bench = bench(settings(), |attempt, _, _| {
        if attempt < 100 {
            Err(StoreError::LeaderNotFound)
        } else {
            Ok(served(None))
        }
    });
    let started = Instant::now();
    bench
        .queue
        .push(one("a"), None)
        .await
        .unwrap()
        .decided()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(started.elapsed().as_secs(), 100);
    assert_eq!(bench.sql().len(), 101);
    assert_eq!(
        bench.metrics.get(Counter::HttpQueuedExecutionsNoLeader),
        100
    );
    assert_eq!(bench.queue.status().last_error, "leader not found");
}

#[tokio::test(start_paused = true)]
async fn a_poisonous_request_is_dropped_alone() {
    let refuse = |_, request: &Request, _: &Caller| {
        let poison = request
            .statements
            .iter()
            .any(|statement| statement.sql == "poison");
        Ok(served(poison.then_some("disallowed pragma")))
    };
    let bench = bench(settings(), refuse);
    let mut tickets = Vec::new();
    for sql in ["a", "poison", "b"] {
        tickets.push(bench.queue.push(one(sql), None).await.unwrap());
    }
    bench
        .queue
        .push(one("c"), None)
        .await
        .unwrap()
        .decided()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        bench.sql(),
        [
            vec!["a", "poison", "b"],
            vec!["a"],
            vec!["poison"],
            vec!["b"],
            vec!["c"]
        ]
    );
    let refused = Err(StoreError::Refused("disallowed pragma".to_owned()));
    for (ticket, want) in tickets.into_iter().zip([Ok(()), refused, Ok(())]) {
        assert_eq!(ticket.decided().await.unwrap(), want);
    }
    let status = bench.queue.status();
    assert_eq!(status.dropped_requests, 1);
    assert_eq!(status.last_error, "disallowed pragma");
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_may_pass_is_tried_for_a_while() {
    let bench = bench(settings(), |_, _, _| {
        Err(StoreError::Refused("too large".to_owned()))
    });
    let reported = bench
        .queue
        .push(one("a"), None)
        .await
        .unwrap()
        .decided()
        .await
        .unwrap();
    assert_eq!(reported, Err(StoreError::Refused("too large".to_owned())));
    assert_eq!(bench.sql().len(), usize::try_from(MAX_ATTEMPTS).unwrap());
    assert_eq!(bench.queue.status().dropped_requests, 1);
}

#[tokio::test(start_paused = true)]
async fn failed_statements_are_counted() {
    let result = StatementResult::Error("no such table: a".to_owned());
    let bench = bench(settings(), move |_, _, _| {
        Ok(Served {
            results: vec![result.clone(), result.clone()],
            ..served(None)
        })
    });
    let reported = bench
        .queue
        .push(one("a"), None)
        .await
        .unwrap()
        .decided()
        .await
        .unwrap();
    let error = StoreError::Refused("no such table: a".to_owned());
    assert_eq!(reported, Err(error));
    let status = bench.queue.status();
    assert_eq!(status.failed_statements, 2);
    assert_eq!(status.dropped_requests, 0);
    assert_eq!(status.last_error, "no such table: a");
}

#[tokio::test(start_paused = true)]
async fn a_write_carries_one_callers_credentials() {
    let bench = bench(settings(), |_, _, _| Ok(served(None)));
    for (sql, name) in [("a", "bob"), ("b", "bob"), ("c", "eve")] {
        bench.queue.push(one(sql), user(name)).await.unwrap();
    }
    bench
        .queue
        .push(Vec::new(), user("eve"))
        .await
        .unwrap()
        .decided()
        .await
        .unwrap()
        .unwrap();
    let writes = bench.writes.lock().clone();
    assert_eq!(
        writes,
        [
            (vec!["a".into(), "b".into()], Some("bob".into())),
            (vec!["c".into()], Some("eve".into()))
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_request_is_written_alone() {
    let bench = bench(settings(), |_, _, _| Ok(served(None)));
    let large = "x".repeat(MAX_BATCH_BYTES);
    for sql in ["a", &large, "b"] {
        bench.queue.push(one(sql), None).await.unwrap();
    }
    bench
        .queue
        .push(Vec::new(), None)
        .await
        .unwrap()
        .decided()
        .await
        .unwrap()
        .unwrap();
    let lengths: Vec<usize> = bench.sql().iter().map(Vec::len).collect();
    assert_eq!(lengths, [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn stopping_writes_what_is_held() {
    let bench = bench(
        QueueSettings {
            timeout: Duration::from_secs(3600),
            ..settings()
        },
        |_, _, _| Ok(served(None)),
    );
    let tickets = [
        bench.queue.push(one("a"), None).await.unwrap(),
        bench.queue.push(one("b"), None).await.unwrap(),
    ];
    bench.stop.cancel();
    for ticket in tickets {
        ticket.decided().await.unwrap().unwrap();
    }
    stopped(bench.task).await;
    assert_eq!(
        bench
            .writes
            .lock()
            .iter()
            .map(|(sql, _)| sql.len())
            .sum::<usize>(),
        2
    );
    assert_eq!(
        bench.queue.push(one("c"), None).await.unwrap_err(),
        QueueStopped
    );
}

#[tokio::test(start_paused = true)]
async fn stopping_gives_up_after_its_limit() {
    let bench = bench(settings(), |_, _, _| Err(StoreError::LeaderNotFound));
    let ticket = bench.queue.push(one("a"), None).await.unwrap();
    let started = Instant::now();
    bench.stop.cancel();
    bench.task.await.unwrap();
    assert_eq!(started.elapsed(), STOP_LIMIT);
    assert_eq!(ticket.decided().await, Err(QueueStopped));
}

/// It may have been written; a retry could write it twice.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_told_and_not_tried_again() {
    let lost = StoreError::Unknown("leadership lost while committing log".to_owned());
    let error = lost.clone();
    let bench = bench(settings(), move |attempt, _, _| {
        if attempt == 0 {
            Err(error.clone())
        } else {
            Ok(served(None))
        }
    });
    let mut tickets = Vec::new();
    for sql in ["a", "b", "c", "d"] {
        tickets.push(bench.queue.push(one(sql), None).await.unwrap());
    }
    let wanted = [Err(lost.clone()), Err(lost.clone()), Err(lost), Ok(())];
    for (ticket, want) in tickets.into_iter().zip(wanted) {
        assert_eq!(ticket.decided().await.unwrap(), want);
    }
    assert_eq!(bench.sql(), [vec!["a", "b", "c"], vec!["d"]]);
    let status = bench.queue.status();
    assert_eq!(status.unknown_requests, 3);
    assert_eq!(status.dropped_requests, 0);
    assert_eq!(bench.metrics.get(Counter::QueueRequestsUnknown), 3);
}

/// One that fails in a transaction fails the requests with it, until they are written without it.
#[tokio::test(start_paused = true)]
async fn in_a_transaction_a_bad_neighbour_costs_nobody_his_write() {
    let tx = QueueSettings {
        transaction: true,
        ..settings()
    };
    let bench = bench(tx, |_, request, _| {
        let results = request.statements.iter().map(|statement| {
            if statement.sql == "bad" {
                StatementResult::Error("no such table: t".to_owned())
            } else {
                StatementResult::Write(node_values::WriteResult::default())
            }
        });
        Ok(Served {
            results: results.collect(),
            ..served(None)
        })
    });
    let mut tickets = Vec::new();
    for sql in ["a", "bad", "b"] {
        tickets.push(bench.queue.push(one(sql), None).await.unwrap());
    }
    let bad = Err(StoreError::Refused("no such table: t".to_owned()));
    for (ticket, want) in tickets.into_iter().zip([Ok(()), bad, Ok(())]) {
        assert_eq!(ticket.decided().await.unwrap(), want);
    }
    assert_eq!(
        bench.sql(),
        [vec!["a", "bad", "b"], vec!["a"], vec!["bad"], vec!["b"]]
    );
}
