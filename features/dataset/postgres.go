package dataset

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// postgresKinds is how the types of PostgreSQL read; numeric as a float of 64 bits.
var postgresKinds = map[uint32]schemas.Kind{
	pgtype.BoolOID: schemas.Bool,
	pgtype.Int2OID: schemas.Int, pgtype.Int4OID: schemas.Int, pgtype.Int8OID: schemas.Int,
	pgtype.Float4OID: schemas.Float, pgtype.Float8OID: schemas.Float, pgtype.NumericOID: schemas.Float,
	pgtype.TextOID: schemas.String, pgtype.VarcharOID: schemas.String, pgtype.BPCharOID: schemas.String, pgtype.NameOID: schemas.String,
	pgtype.UUIDOID:        schemas.String,
	pgtype.TimestamptzOID: schemas.Time, pgtype.TimestampOID: schemas.Time, pgtype.DateOID: schemas.Time,
	pgtype.ByteaOID: schemas.Bytes,
}

// convertQuery runs a query and keeps its rows, as they come, in a temporary file: the join looks at them twice, and the
// query must not give other rows the second time.
func convertQuery(ctx context.Context, dsn, query, tempDir string) (Columnar, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, queryFailed(ctx, "connecting to PostgreSQL", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, queryFailed(ctx, "running the query", err)
	}
	defer rows.Close()
	// The columns are known when the query was accepted, so an error of it comes first.
	if len(rows.FieldDescriptions()) == 0 {
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, queryFailed(ctx, "running the query", err)
		}
		return nil, failure.New(failure.BadRequest, "query", "it gives no columns").WithHint("write a SELECT")
	}
	var names []string
	var kinds []schemas.Kind
	for _, f := range rows.FieldDescriptions() {
		kind, ok := postgresKinds[f.DataTypeOID]
		if !ok {
			return nil, failure.New(failure.BadRequest, f.Name, "the column's type (OID %d) is not read here", f.DataTypeOID).
				WithHint("cast it in the query, like %s::text, or leave it out", f.Name)
		}
		names, kinds = append(names, f.Name), append(kinds, kind)
	}
	c, err := newConverter(tempDir, names, kinds)
	if err != nil {
		return nil, err
	}
	if err := c.addRows(ctx, rows, names); err != nil {
		c.file.Close()
		return nil, err
	}
	return c.finish("query")
}

func (c *converter) addRows(ctx context.Context, rows pgx.Rows, names []string) error {
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return queryFailed(ctx, "reading rows", err)
		}
		for i, value := range values {
			v, err := postgresValue(value)
			if err != nil {
				return failure.Wrap(failure.BadRequest, names[i], "reading rows", err)
			}
			c.add(i, v)
		}
		if err := c.endRow(ctx); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return queryFailed(ctx, "reading rows", err)
	}
	return nil
}

func postgresValue(value any) (schemas.Value, error) {
	if v, ok := schemas.ValueOf(value); ok {
		return v, nil
	}
	switch v := value.(type) {
	case pgtype.Numeric:
		f, err := v.Float64Value()
		if err != nil {
			return schemas.Value{}, err
		}
		return schemas.FloatValue(f.Float64), nil
	case [16]byte:
		return schemas.StringValue(fmt.Sprintf("%x-%x-%x-%x-%x", v[0:4], v[4:6], v[6:8], v[8:10], v[10:])), nil
	default: // infinity
		return schemas.Value{}, fmt.Errorf("%v has no place in a column of the dataset", value)
	}
}

// queryFailed tells a query that is wrong from a server that does not answer.
func queryFailed(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return failure.Wrap(failure.BadRequest, "query", doing, err)
	}
	return failure.Wrap(failure.Unavailable, "PostgreSQL", doing, err).WithHint("is the address right, and the server up?")
}
