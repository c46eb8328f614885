// Package offline is the log of what was accepted and of what it became, as files anybody can read: per source the events
// as decoded (events/<source>), per feature group the values as of each flush (features/<group>@<version>). Training,
// backfill and explanations replay it; DuckDB, Polars and pyarrow open it as a hive-partitioned folder of Arrow files.
//
// On the event's way it comes after the feature engine: the owner of a partition appends rows and commits offset ranges.
//
//	<table>/dt=2001-05-20/3-1200-1800.arrow   rows of partition 3, offsets [1200, 1800), whose event time is on that day (UTC);
//	<table>/month=2001-05/3-1200-1800.arrow   in that month, where the table is laid out by month
//	<table>/_log/3/00000000000000000007.json  the commit that names those files
//	<table>/_tmp/…                            files on their way
//
// A file is Arrow IPC (file format) with LZ4 bodies, its rows sorted by (_time, _offset). The columns are the table's and then _time
// (timestamp, ms, UTC), _partition (int32) and _offset (int64).
//
// What holds:
//   - A row is in the table once, or not: commits of a partition are contiguous and made exclusively, and rows below the committed
//     end are ignored when they come again.
//   - A file under dt= or month= is whole and committed. What a crash leaves behind is under _tmp, and the partition's next owner clears it.
//   - A writer that lost its partition gets a Conflict and adds nothing, however late it wakes up.
//   - A full or failing disk is Unavailable: no row is dropped, and the same Commit may be tried again.
//
// It refuses rows that do not fit the columns, commits that go backwards, and files that are not what their commit says (Corrupt).
//
// Arrow and Parquet are imported here and in features/dataset alone. The stages (streams/ingest, training), features/pit,
// features/dataset and cmd may import this package. Times are Unix
// milliseconds UTC throughout. docs/decisions/0004-offline-log.md says why it is built so.
package offline
