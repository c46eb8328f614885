// Package dataset makes training sets: it reads a spine (a file, an SQL query, a source's events), joins features to it as
// they were known at each row's time (package pit), and writes the spine's columns and the features as one Parquet or Arrow
// file with a manifest.
//
// One row comes out for each row that went in, in the spine's order, duplicates included; the spine's columns come out as
// they are. Everything streams: what does not fit the limits of pit.Config goes to temporary files.
//
// It refuses a spine whose time column is not a time or has a null, whose entity columns are missing or of another kind
// than the group's, or that has columns of the same names as the features. Rows that name no entity (null or empty) are
// kept: their features are null, their status is not_found, and the manifest counts them.
package dataset
