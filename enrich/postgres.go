package enrich

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// queryTimeout is how long one run of a query may take.
const queryTimeout = 5 * time.Minute

// query fills an empty table with the answer of its query, in one read-only transaction. Its columns are found by name; those that the
// schema does not have are passed over.
func (l *Loader) query(ctx context.Context, t *project.Table, into *features.Table) error {
	url := l.deps.Getenv(t.URLEnv)
	if url == "" {
		return failure.New(failure.BadProject, t.Name, "the environment variable %s is not set", t.URLEnv).
			WithHint("it holds the PostgreSQL connection URL, like postgres://user:password@host/database")
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return failure.Wrap(failure.Unavailable, t.Name, "connecting to PostgreSQL", err) // it does not tell the password
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return failure.Wrap(failure.Unavailable, t.Name, "beginning a transaction", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	rows, err := tx.Query(ctx, t.Query)
	if err != nil {
		return failure.Wrap(failure.Unavailable, t.Name, "running the query", err)
	}
	defer rows.Close()
	columns, err := columnsOf(t, rows)
	if err != nil {
		return err
	}
	row := make(schemas.Row, len(t.Schema.Columns))
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return failure.Wrap(failure.BadProject, t.Name, "reading a row of the query", err)
		}
		for i, v := range values {
			if columns[i] < 0 {
				continue
			}
			c := t.Schema.Columns[columns[i]]
			value, known := schemas.ValueOf(v)
			if !known {
				err = fmt.Errorf("a %T cannot be taken", v)
			} else {
				value, err = fit(value, c)
			}
			if err != nil {
				return failure.New(failure.BadProject, t.Name, "column %s of the query: %v", c.Name, err).WithHint("cast it in the query")
			}
			row[columns[i]] = value
		}
		if err := t.Put(into, row, features.Always); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return failure.Wrap(failure.Unavailable, t.Name, "running the query", err)
	}
	return nil
}

// columnsOf finds where each column of the answer belongs in the schema, -1 for nowhere.
func columnsOf(t *project.Table, rows pgx.Rows) ([]int, error) {
	fields := rows.FieldDescriptions()
	columns := make([]int, len(fields))
	seen := map[int]bool{}
	for i, f := range fields {
		columns[i] = t.Schema.Index(f.Name)
		seen[columns[i]] = true
	}
	for i, c := range t.Schema.Columns {
		if !seen[i] && !c.Nullable {
			rows.Close()
			if err := rows.Err(); err != nil {
				return nil, failure.Wrap(failure.BadProject, t.Name, "running the query", err)
			}
			return nil, failure.New(failure.BadProject, t.Name, "the query gives no column %q", c.Name)
		}
	}
	return columns, nil
}
