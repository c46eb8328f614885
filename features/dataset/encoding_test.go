package dataset

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// The same rows give the same bytes, or a digest would name a run and not what is in the file. The texts and numbers are more than a dictionary
// holds by Arrow's default, 1 MiB.
func TestSameRowsSameDigest(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.BinaryTypes.String}, {Name: "amount", Type: arrow.PrimitiveTypes.Float64}, {Name: "at", Type: arrow.FixedWidthTypes.Timestamp_ms},
		{Name: "mean", Type: arrow.PrimitiveTypes.Float64}, {Name: "kind", Type: arrow.BinaryTypes.String},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	for i := range rowGroupRows + 1000 {
		b.Field(0).(*array.StringBuilder).Append(fmt.Sprintf("payment-%09d-of-a-card", i))
		b.Field(1).(*array.Float64Builder).Append(float64(i) / 7)
		b.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(i))
		b.Field(3).(*array.Float64Builder).Append(float64(i) / 3)
		b.Field(4).(*array.StringBuilder).Append([]string{"in", "out"}[i%2])
	}
	record := b.NewRecord()
	for _, name := range []string{"rows.parquet", "rows.arrow"} {
		digests := map[string]bool{}
		for range 8 {
			w, err := NewFileWriter(filepath.Join(t.TempDir(), name), schema, 3)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Write(record); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			digests[w.Digest()] = true
		}
		if len(digests) != 1 {
			t.Errorf("%s: %d digests of the same rows", name, len(digests))
		}
	}
}
