"""Every metric of a node: the names under which its figures are told (docs/metrics.md is made to agree)."""

from __future__ import annotations

from node.exposition import Metric

INFO = Metric("node_info", "gauge", "Always 1; says who this is.", ("cluster", "node", "version"))
HEALTHY = Metric("healthy", "gauge", "1 if the process lives and its log works, as /healthz says.")
READY = Metric("ready", "gauge", "1 if this node can serve, as /readyz says.")
UPTIME = Metric("uptime_seconds", "gauge", "Time since this process began to serve its pages.")
INCARNATION = Metric("node_incarnation", "gauge", "How often this node has started.")
MEMORY = Metric("memory_bytes", "gauge", "Resident memory of this process.")
MEMORY_PERCENT = Metric(
    "memory_percent", "gauge", "Resident memory as a share of what may be used; at 100 publishes stop."
)
LOOP_LAG = Metric("loop_lag_seconds", "gauge", "How late the event loop was at the worst of its latest looks.")
LOOP_STALLS = Metric("loop_stalls_total", "counter", "Times that the event loop stood still for half a second.")
SCRAPE = Metric("scrape_seconds", "gauge", "How long the collecting of these figures took.")

DISK_FREE = Metric("disk_free_bytes", "gauge", "Free space of the disk with the data directory.")
DISK_PRESSURE = Metric(
    "disk_pressure", "gauge", "What the disk can take: 0 all, 1 busy, 2 low (no publishes), 3 critical."
)
WAL_SYNCS = Metric("wal_syncs_total", "counter", "Writes of the write-ahead log with their sync.")
WAL_BYTES = Metric("wal_bytes_total", "counter", "Bytes written to the write-ahead log.")
WAL_SECONDS = Metric(
    "wal_sync_seconds_total", "counter", "Time that writing and syncing the write-ahead log took."
)
WAL_SLOW = Metric("wal_slow_syncs_total", "counter", "Syncs of the write-ahead log that took a second or longer.")
WAL_UNDER_WAY = Metric("wal_sync_under_way_seconds", "gauge", "How long the sync that is under way takes already.")
WAL_WAITING = Metric("wal_files_waiting", "gauge", "Full files of the write-ahead log that wait for their flush.")
FLUSHES = Metric("flushes_total", "counter", "Files of the write-ahead log that were flushed to segments.")
SEGMENTS = Metric("segment_files", "gauge", "Segment files.")
SNAPSHOTS = Metric("snapshot_files", "gauge", "Snapshot files.")

REPLICAS = Metric("raft_replicas", "gauge", "Replicas on this node, of all groups.")
LEADERS = Metric("raft_leaders", "gauge", "Groups that are led here.")
ASLEEP = Metric("raft_asleep_replicas", "gauge", "Replicas that are idle and cost nothing.")
FENCED = Metric(
    "raft_fenced_replicas", "gauge", "Replicas that are out of service, for a reason that is in the log."
)
GAINED = Metric("raft_leaderships_gained_total", "counter", "Times that a group began to be led here.")
LOST = Metric("raft_leaderships_lost_total", "counter", "Times that a group ceased to be led here.")
CAMPAIGNS = Metric("raft_campaigns_total", "counter", "Times that a replica on this node stood for election.")
UNDER_REPLICATED = Metric(
    "raft_under_replicated_groups", "gauge", "Groups led here with a replica that is not caught up."
)
LAGGING = Metric("raft_lagging_replicas", "gauge", "Replicas of groups led here that are not caught up.")
APPLY_LAG = Metric("raft_apply_lag_entries", "gauge", "Entries that are committed and not applied here yet.")

MAILBOX = Metric("mailbox_messages", "gauge", "Messages that wait in the mailboxes of partitions and groups.")
MAILBOX_MAX = Metric("mailbox_messages_max", "gauge", "Messages in the fullest mailbox of a partition or group.")
OVERFLOWS = Metric("mailbox_overflows_total", "counter", "Messages that were refused since a mailbox was full.")
ACTORS_READY = Metric("actors_ready", "gauge", "Actors that have something to do now.")
ACTOR_FAILURES = Metric("actor_failures_total", "counter", "Times that an actor failed, which the log tells of.")

TOPICS = Metric("topics", "gauge", "Topics and queues with a replica on this node.", ("kind",))
PARTITIONS = Metric("partitions", "gauge", "Partitions of topics and queues with a replica on this node.")
PARTITIONS_LED = Metric("partitions_led", "gauge", "Partitions that are led and served here.")
BATCHES = Metric("published_batches_total", "counter", "Batches that were published and committed here.")
RECORDS = Metric("published_records_total", "counter", "Records that were published and committed here.")
BYTES = Metric("published_bytes_total", "counter", "Bytes of batches that were published and committed here.")
REFUSED = Metric("refused_publishes_total", "counter", "Publishes that admission refused here.", ("reason",))
REDELIVERED = Metric("redelivered_records_total", "counter", "Records given to a consumer not for the first time.")
DEAD_LETTERED = Metric("dead_lettered_records_total", "counter", "Records moved to a dead-letter queue.")
BACKLOG = Metric("backlog_records", "gauge", "Records that wait in the partitions led here.")
BACKLOG_BYTES = Metric("backlog_bytes", "gauge", "About how many bytes wait in the partitions led here.")
LEASED = Metric("leased_records", "gauge", "Records of partitions led here that consumers hold.")
CONSUMERS = Metric("consumers", "gauge", "Consumers of partitions led here; one of two of them counts twice.")
IN_FLIGHT = Metric("publish_in_flight_bytes", "gauge", "Publishes that are proposed and not committed.")
WAITING = Metric("publish_waiting_bytes", "gauge", "Publishes that wait for admission.")

TOPIC_PARTITIONS = Metric("topic_partitions_led", "gauge", "A topic's partitions that are led here.", ("topic",))
TOPIC_RECORDS = Metric(
    "topic_published_records_total",
    "counter",
    "A topic's records that were published and committed here.",
    ("topic",),
)
TOPIC_BYTES = Metric(
    "topic_published_bytes_total", "counter", "Bytes of a topic's batches that were committed here.", ("topic",)
)
TOPIC_BACKLOG = Metric(
    "topic_backlog_records", "gauge", "Records that wait in a topic's partitions led here.", ("topic",)
)
TOPIC_BACKLOG_BYTES = Metric(
    "topic_backlog_bytes", "gauge", "About how many bytes wait in a topic's partitions led here.", ("topic",)
)
TOPIC_LEASED = Metric(
    "topic_leased_records", "gauge", "Records of a topic's partitions led here that consumers hold.", ("topic",)
)

NODES = Metric("nodes", "gauge", "Nodes that the catalogue knows.")
PEERS = Metric("peers", "gauge", "Other nodes that this one has a link to.")
PEER_UP = Metric("peer_up", "gauge", "1 if that node is heard.", ("peer",))
PEER_FRAMES = Metric("peer_frames_sent_total", "counter", "Frames sent to other nodes.")
PEER_SENT = Metric("peer_sent_bytes_total", "counter", "Bytes sent to other nodes.")
PEER_RECEIVED = Metric("peer_received_bytes_total", "counter", "Bytes received from other nodes.")
PEER_MESSAGES = Metric("peer_messages_total", "counter", "Raft messages to and from other nodes.", ("direction",))
PEER_DROPPED = Metric(
    "peer_messages_dropped_total", "counter", "Raft messages that were not delivered.", ("reason",)
)
PEER_LOST = Metric("peer_connections_lost_total", "counter", "Connections to other nodes that broke.")
PEER_REFUSED = Metric(
    "peer_handshakes_refused_total", "counter", "Connections to or from nodes that were refused."
)
