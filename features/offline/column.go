package offline

import (
	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// Column is a column of a table. Every column may hold nulls.
type Column struct {
	Name string
	Kind schemas.Kind
}

// The columns that every file carries after the table's own.
const (
	TimeColumn      = "_time"      // event time, timestamp in ms, UTC
	PartitionColumn = "_partition" // Kafka partition, int32
	OffsetColumn    = "_offset"    // Kafka offset, int64
)

func reserved(name string) bool {
	return name == TimeColumn || name == PartitionColumn || name == OffsetColumn
}

func arrowType(k schemas.Kind) arrow.DataType {
	switch k {
	case schemas.Bool:
		return arrow.FixedWidthTypes.Boolean
	case schemas.Int:
		return arrow.PrimitiveTypes.Int64
	case schemas.Float:
		return arrow.PrimitiveTypes.Float64
	case schemas.Time:
		return arrow.FixedWidthTypes.Timestamp_ms
	case schemas.Bytes:
		return arrow.BinaryTypes.Binary
	default:
		return arrow.BinaryTypes.String
	}
}

// checkColumns refuses what could not be told apart when read back.
func checkColumns(where string, columns []Column) error {
	seen := make(map[string]bool, len(columns))
	for _, c := range columns {
		switch {
		case c.Name == "" || reserved(c.Name):
			return failure.New(failure.BadProject, where, "a column cannot be called %q", c.Name)
		case seen[c.Name]:
			return failure.New(failure.BadProject, where, "two columns are called %q", c.Name)
		case c.Kind == schemas.Null || c.Kind > schemas.Bytes:
			return failure.New(failure.BadProject, where, "column %q has no type", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

// arrowSchema is the schema of a table's files.
func arrowSchema(columns []Column) *arrow.Schema {
	fields := make([]arrow.Field, 0, len(columns)+3)
	for _, c := range columns {
		fields = append(fields, arrow.Field{Name: c.Name, Type: arrowType(c.Kind), Nullable: true})
	}
	fields = append(fields,
		arrow.Field{Name: TimeColumn, Type: arrow.FixedWidthTypes.Timestamp_ms},
		arrow.Field{Name: PartitionColumn, Type: arrow.PrimitiveTypes.Int32},
		arrow.Field{Name: OffsetColumn, Type: arrow.PrimitiveTypes.Int64})
	return arrow.NewSchema(fields, nil)
}
