//! Names of the counters: map and key of `/debug/vars`. They do not change, because scripts and dashboards
//! read them.

/// End of the keys of moments, in seconds since the Unix epoch.
const TIMESTAMP: &str = "_timestamp_seconds";

/// Defines [`Counter`] from a table of maps, variants and keys, so that every counter has a name.
macro_rules! counters {
    ($($map:literal { $($variant:ident $key:literal)* })*) => {
        /// A counter of the node. Each variant is named after its map and key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Counter {
            $($(
                #[doc = concat!("`", $key, "` of the map `", $map, "`.")]
                $variant,
            )*)*
        }

        impl Counter {
            /// All counters, in the order of their values.
            pub const ALL: &'static [Self] = &[$($(Self::$variant,)*)*];

            /// The map of the counter.
            pub fn map(self) -> &'static str {
                match self {
                    $($(Self::$variant => $map,)*)*
                }
            }

            /// The key of the counter in its map.
            pub fn key(self) -> &'static str {
                match self {
                    $($(Self::$variant => $key,)*)*
                }
            }
        }
    };
}

impl Counter {
    /// A moment that has not come yet, and so is not reported, is 0.
    pub fn is_timestamp(self) -> bool {
        self.key().ends_with(TIMESTAMP)
    }

    /// True if the value can also decrease. Durations are those of the last run, in milliseconds.
    pub fn is_gauge(self) -> bool {
        let key = self.key();
        key.ends_with("_duration")
            || key.ends_with("_duration_ms")
            || key.ends_with("_wal_size")
            || key.ends_with(TIMESTAMP)
            || matches!(
                key,
                "last_upload_bytes" | "fifo_num_items" | "file_refused" | "log_held_bytes"
            )
            || matches!((self.map(), key), ("archive", "index"))
            || key.starts_with("behind_")
    }
}

counters! {
    "archive" {
        ArchiveIndex "index"
        ArchiveBehindSeconds "behind_seconds"
        ArchiveBehindEntries "behind_entries"
        ArchiveLogHeldBytes "log_held_bytes"
        ArchiveSegments "segments"
        ArchiveSegmentBytes "segment_bytes"
        ArchiveEntries "entries"
        ArchiveLastSegment "last_segment_timestamp_seconds"
        ArchiveBases "bases"
        ArchiveBaseBytes "base_bytes"
        ArchiveLastBase "last_base_timestamp_seconds"
        ArchiveFailures "failures"
        ArchiveGaps "gaps"
    }
    "http" {
        HttpAuthOk "auth_ok"
        HttpAuthFail "auth_fail"
        HttpBackups "backups"
        HttpBoot "boot"
        HttpExecuteStmtsRx "execute_stmts_rx"
        HttpExecutions "executions"
        HttpLeaderNotFound "leader_not_found"
        HttpLoads "loads"
        HttpNumReadyz "num_readyz"
        HttpNumStatus "num_status"
        HttpQueries "queries"
        HttpQueryStmtsRx "query_stmts_rx"
        HttpQueuedExecutions "queued_executions"
        HttpQueuedExecutionsFailed "queued_executions_failed"
        HttpQueuedExecutionsLeadershipLost "queued_executions_leadership_lost"
        HttpQueuedExecutionsNoLeader "queued_executions_no_leader"
        HttpQueuedExecutionsNotLeader "queued_executions_not_leader"
        HttpQueuedExecutionsNumStmtsRx "queued_executions_num_stmts_rx"
        HttpQueuedExecutionsNumStmtsTx "queued_executions_num_stmts_tx"
        HttpQueuedExecutionsOk "queued_executions_ok"
        HttpQueuedExecutionsUnknownError "queued_executions_unknown_error"
        HttpQueuedExecutionsWait "queued_executions_wait"
        HttpQueuedExecutionsWaitTimeout "queued_executions_wait_timeout"
        HttpRequestStmtsRx "request_stmts_rx"
        HttpRequests "requests"
        HttpSqlAnalyze "sql_analyze"
        HttpTlsCertFetched "tls_cert_fetched"
        HttpUi "ui"
        HttpUserReaps "user_reaps"
        HttpUserSnapshots "user_snapshots"
    }
    "audit" {
        AuditRecords "records"
        AuditRecordsLost "records_lost"
    }
    "auth" {
        AuthReloads "reloads"
        AuthReloadsFailed "reloads_failed"
        AuthFileRefused "file_refused"
        AuthHashChecks "hash_checks"
        AuthHashChecksWrong "hash_checks_wrong"
        AuthLoginsRefused "logins_refused"
    }
    "store" {
        StoreNumSnapshots "num_snapshots"
        StoreNumSnapshotsFailed "num_snapshots_failed"
        StoreNumSnapshotsFull "num_snapshots_full"
        StoreNumSnapshotsIncremental "num_snapshots_incremental"
        StoreNumUserSnapshots "num_user_snapshots"
        StoreNumUserSnapshotsFailed "num_user_snapshots_failed"
        StoreNumWalSnapshots "num_wal_snapshots"
        StoreNumWalSnapshotsFailed "num_wal_snapshots_failed"
        StoreNumSnapshotPersists "num_snapshot_persists"
        StoreNumSnapshotPersistsFailed "num_snapshot_persists_failed"
        StoreNumRestores "num_restores"
        StoreNumRestoresFailed "num_restores_failed"
        StoreNumRestoresStart "num_restores_start"
        StoreNumRestoresStartSkipped "num_restores_start_skipped"
        StoreNumAutoRestores "num_auto_restores"
        StoreNumAutoRestoresFailed "num_auto_restores_failed"
        StoreNumAutoRestoresSkipped "num_auto_restores_skipped"
        StoreNumAutoVacuums "num_auto_vacuums"
        StoreNumAutoVacuumsFailed "num_auto_vacuums_failed"
        StoreNumAutoOptimizes "num_auto_optimizes"
        StoreNumAutoOptimizesFailed "num_auto_optimizes_failed"
        StoreNumBackups "num_backups"
        StoreNumBoots "num_boots"
        StoreNumLoads "num_loads"
        StoreNumRecoveries "num_recoveries"
        StoreNumJoins "num_joins"
        StoreNumIgnoredJoins "num_ignored_joins"
        StoreNumRemovedBeforeJoins "num_removed_before_joins"
        StoreNumProviderChecks "num_provider_checks"
        StoreNumProviderProvides "num_provider_provides"
        StoreNumProviderProvidesFail "num_provider_provides_fail"
        StoreNumCompressedCommands "num_compressed_commands"
        StoreNumUncompressedCommands "num_uncompressed_commands"
        StoreNumDbStatsErrors "num_db_stats_errors"
        StoreNumContentComparisons "num_content_comparisons"
        StoreNumContentDifferences "num_content_differences"
        StoreNumVerifyLeader "num_verify_leader"
        StoreNumVerifyLeaderFailed "num_verify_leader_failed"
        StoreNodesReapedOk "nodes_reaped_ok"
        StoreNodesReapedFailed "nodes_reaped_failed"
        StoreLeaderChangesObserved "leader_changes_observed"
        StoreLeaderChangesDropped "leader_changes_dropped"
        StoreFailedHeartbeatObserved "failed_heartbeat_observed"
        StoreAppendsUnsendable "appends_unsendable"
        StoreSnapshotCreateDuration "snapshot_create_duration"
        StoreSnapshotPersistDuration "snapshot_persist_duration"
        StoreRestoreDuration "restore_duration"
        StoreAutoVacuumDuration "auto_vacuum_duration"
        StoreAutoOptimizeDuration "auto_optimize_duration"
        StoreNumFullCheckpointFailed "num_full_checkpoint_failed"
        StoreNumWalCheckpointTruncateFailed "num_wal_checkpoint_truncate_failed"
        StoreSnapshotCreateChkTruncateDuration "snapshot_create_chk_truncate_duration"
        StoreSnapshotCreateWalCompactDuration "snapshot_create_wal_compact_duration"
        StoreSnapshotPrecompactWalSize "snapshot_precompact_wal_size"
        StoreSnapshotWalSize "snapshot_wal_size"
    }
    "cluster" {
        ClusterNumExecuteReq "num_execute_req"
        ClusterNumQueryReq "num_query_req"
        ClusterNumRequestReq "num_request_req"
        ClusterNumBackupReq "num_backup_req"
        ClusterNumLoadReq "num_load_req"
        ClusterNumRemoveNodeReq "num_remove_node_req"
        ClusterNumNotifyReq "num_notify_req"
        ClusterNumJoinReq "num_join_req"
        ClusterNumStepdownReq "num_stepdown_req"
        ClusterNumBroadcastHwmReq "num_broadcast_hwm_req"
        ClusterNumGetNodeApiReq "num_get_node_api_req"
        ClusterNumGetNodeApiReqLocal "num_get_node_api_req_local"
        ClusterNumGetNodeApiReqRetries "num_get_node_api_req_retries"
        ClusterNumGetNodeApiResp "num_get_node_api_resp"
        ClusterNumClientRetries "num_client_retries"
        ClusterNumClientExecuteRetries "num_client_execute_retries"
        ClusterNumClientQueryRetries "num_client_query_retries"
        ClusterNumClientRequestRetries "num_client_request_retries"
        ClusterNumClientLoadRetries "num_client_load_retries"
        ClusterNumClientForceNewConn "num_client_force_new_conn"
        ClusterNumClientReadTimeouts "num_client_read_timeouts"
        ClusterNumClientWriteTimeouts "num_client_write_timeouts"
        ClusterNumConnRejected "num_conn_rejected"
        ClusterNumHwmUpdateDropped "num_hwm_update_dropped"
    }
    "proxy" {
        ProxyRemoteExecutions "remote_executions"
        ProxyRemoteExecutionsFailed "remote_executions_failed"
        ProxyRemoteQueries "remote_queries"
        ProxyRemoteQueriesFailed "remote_queries_failed"
        ProxyRemoteRequests "remote_requests"
        ProxyRemoteRequestsFailed "remote_requests_failed"
        ProxyRemoteBackups "remote_backups"
        ProxyRemoteLoads "remote_loads"
        ProxyRemoteRemoveNode "remote_remove_node"
        ProxyRemoteStepdowns "remote_stepdowns"
    }
    "auto_backup" {
        AutoBackupLastUpload "last_upload_timestamp_seconds"
        AutoBackupLastUploadDuration "last_upload_duration_ms"
    }
    "uploader" {
        UploaderNumUploadsOk "num_uploads_ok"
        UploaderNumUploadsFail "num_uploads_fail"
        UploaderNumUploadsSkipped "num_uploads_skipped"
        UploaderNumUploadsSkippedId "num_uploads_skipped_id"
        UploaderNumSumGetFail "num_sum_get_fail"
        UploaderLastUploadBytes "last_upload_bytes"
        UploaderTotalUploadBytes "total_upload_bytes"
    }
    "downloader" {
        DownloaderNumDownloadsOk "num_downloads_ok"
        DownloaderNumDownloadsFail "num_downloads_fail"
        DownloaderDownloadBytes "download_bytes"
    }
    "cdc.service" {
        CdcServiceNumEventsTxOk "num_events_tx_ok"
        CdcServiceNumEventsTxFailed "num_events_tx_failed"
        CdcServiceRetries "retries"
        CdcServiceDroppedFailedToSend "dropped_failed_to_send"
        CdcServiceNumBytesTx "num_bytes_tx"
        CdcServiceBatcherEventsRx "batcher_events_rx"
        CdcServiceBatcherBatchesTx "batcher_batches_tx"
        CdcServiceFifoEnqueueIgnored "fifo_enqueue_ignored"
        CdcServiceFifoNumItems "fifo_num_items"
        CdcServiceHwmIgnored "hwm_ignored"
        CdcServiceSnapshotSync "snapshot_sync"
    }
    "db" {
        DbExecutions "executions"
        DbExecutionErrors "execution_errors"
        DbExecuteTransactions "execute_transactions"
        DbQueries "queries"
        DbQueryErrors "query_errors"
        DbQueryTransactions "query_transactions"
        DbRequestTransactions "request_transactions"
        DbCheckpoints "checkpoints"
        DbCheckpointErrors "checkpoint_errors"
        DbCheckpointDuration "checkpoint_duration"
        DbCheckpointDurationMs "checkpoint_duration_ms"
        DbOpenDurationMs "open_duration_ms"
        DbCheckpointedPages "checkpointed_pages"
        DbCheckpointedMoves "checkpointed_moves"
        DbExecutionsForceQueries "executions_force_queries"
        DbRequests "requests"
        DbBackupStepErrors "backup_step_errors"
        DbBackupStepDones "backup_step_dones"
        DbBackupSleeps "backup_sleeps"
    }
    "db.wal" {
        DbWalFramesWritten "frames_written"
        DbWalBytesWritten "bytes_written"
    }
    "queue" {
        QueueStatementsRx "statements_rx"
        QueueStatementsTx "statements_tx"
        QueueStatementsFailed "statements_failed"
        QueueRequestsDropped "requests_dropped"
        QueueRequestsUnknown "requests_unknown"
        QueueNumBatch "num_batch"
        QueueNumFlush "num_flush"
        QueueNumTimeout "num_timeout"
    }
    "mux" {
        MuxNumConnectionsHandled "num_connections_handled"
        MuxNumPlainRefused "num_plain_refused"
        MuxNumUnregisteredHandlers "num_unregistered_handlers"
    }
    "proto" {
        ProtoNumRequestsEncoded "num_requests_encoded"
        ProtoNumRequestsDecoded "num_requests_decoded"
    }
    "snapshot" {
        SnapshotUpgradeOk "upgrade_ok"
        SnapshotUpgradeFail "upgrade_fail"
        SnapshotReapOk "reap_ok"
        SnapshotReapFail "reap_fail"
        SnapshotSinkFull "sink_full"
        SnapshotSinkIncremental "sink_incremental"
        SnapshotSinkFail "sink_fail"
    }
    "snapshot.plan" {
        SnapshotPlanExecuted "executed"
        SnapshotPlanFailed "failed"
    }
    "sql.processor" {
        SqlProcessorNumRewrittenStmts "num_rewritten_stmts"
        SqlProcessorNumParserPanics "num_parser_panics"
    }
    "tls" {
        TlsHttpExpiry "http_certificate_expiry_timestamp_seconds"
        TlsHttpReloads "http_certificate_reloads"
        TlsHttpReloadFailures "http_certificate_reload_failures"
        TlsHttpHandshakeFailures "http_handshake_failures"
        TlsNodeExpiry "node_certificate_expiry_timestamp_seconds"
        TlsNodeReloads "node_certificate_reloads"
        TlsNodeReloadFailures "node_certificate_reload_failures"
        TlsNodeHandshakeFailures "node_handshake_failures"
    }
}
