package offline

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/schemas"
)

// BenchmarkAppend appends events of eleven columns, most of them texts, without writing them.
func BenchmarkAppend(b *testing.B) {
	columns := []Column{{Name: "ts", Kind: schemas.Time}}
	row := schemas.Row{schemas.TimeValue(1_700_000_000_000)}
	for i := range 9 {
		columns = append(columns, Column{Name: fmt.Sprint("text", i), Kind: schemas.String})
		row = append(row, schemas.StringValue("c1234567"))
	}
	columns = append(columns, Column{Name: "amount", Kind: schemas.Float})
	row = append(row, schemas.FloatValue(12.5))
	t, err := OpenTable(b.TempDir(), columns)
	if err != nil {
		b.Fatal(err)
	}
	w, err := t.NewWriter(0, WriterOptions{})
	if err != nil {
		b.Fatal(err)
	}
	offset := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		if w.Rows() == 16_384 {
			for _, s := range w.spans {
				t.release(s)
			}
			w.discard()
		}
		if err := w.Append(row, 1_700_000_000_000+offset, offset); err != nil {
			b.Fatal(err)
		}
		offset++
	}
}
