package offline

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
	"github.com/apache/arrow/go/v17/arrow/float16"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

func TestExportedParquetIsTheSortedScan(t *testing.T) {
	dir := t.TempDir()
	table := open(t, dir)
	ends := map[int32]int64{0: 300, 4: 200}
	for p, end := range ends {
		write(t, takeOver(t, table, p, WriterOptions{}), end)
	}
	dst := filepath.Join(dir, "out", "events.parquet")
	if err := ExportParquet(context.Background(), table, ScanOptions{}, dst); err != nil {
		t.Fatal(err)
	}
	var got []told
	names := []string{"_offset", "flight", "delay", "route.distance", "cancelled", "left", "raw", "_time", "_partition"}
	var row schemas.Row
	err := ReadParquet(context.Background(), dst, names, func(b *Batch) error {
		for i := range b.Len() {
			row = b.Row(i, row)
			got = append(got, told{row[7].Int(), int32(row[8].Int()), row[0].Int(), tell(row[1:7])})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := expected(ends)
	slices.SortFunc(want, inOrderOfTime)
	same(t, "exported", got, want)
	if left, _ := filepath.Glob(filepath.Join(dir, "out", ".*")); len(left) > 0 {
		t.Fatalf("these are left: %q", left)
	}
}

func TestFailedExportLeavesNothing(t *testing.T) {
	table := open(t, t.TempDir())
	write(t, takeOver(t, table, 0, WriterOptions{}), 2000)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	out := t.TempDir()
	if err := ExportParquet(ctx, table, ScanOptions{}, filepath.Join(out, "x.parquet")); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Fatalf("these are left: %v, %v", left, err)
	}
}

// What other writers make of the same columns reads as the same values.
func TestReadParquetTakesOtherTypes(t *testing.T) {
	at := []arrow.Timestamp{-1, 1_500, 990_000_000_000_000}
	build := func(types ...arrow.DataType) string {
		var fields []arrow.Field
		for i, kind := range types {
			fields = append(fields, arrow.Field{Name: string(rune('a' + i)), Type: kind, Nullable: true})
		}
		schema := arrow.NewSchema(fields, nil)
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for row := range 3 {
			for i := range types {
				switch f := b.Field(i).(type) {
				case *array.TimestampBuilder:
					f.Append(at[row])
				case *array.Int8Builder:
					f.Append(int8(row - 1))
				case *array.Int16Builder:
					f.Append(int16(row - 1))
				case *array.Int32Builder:
					f.Append(int32(row - 1))
				case *array.Uint32Builder:
					f.Append(uint32(row))
				case *array.Float32Builder:
					f.Append(float32(row) / 2)
				case *array.LargeStringBuilder:
					f.Append(strings.Repeat("x", row))
				case *array.BinaryDictionaryBuilder:
					if err := f.AppendString(strings.Repeat("x", row)); err != nil {
						t.Fatal(err)
					}
				case *array.Date32Builder:
					f.Append(arrow.Date32(row))
				case *array.Decimal128Builder:
					f.Append(decimal128.FromI64(int64(row-1) * 35))
				case *array.Uint64Builder:
					f.Append(uint64(row))
				default:
					t.Fatalf("no builder for %s", types[i])
				}
			}
		}
		path := filepath.Join(t.TempDir(), "x.parquet")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		w, err := pqarrow.NewFileWriter(schema, f, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy)),
			pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
		if err := errors.Join(err, w.Write(b.NewRecord()), w.Close()); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := build(&arrow.TimestampType{Unit: arrow.Microsecond}, arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16,
		arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Float32, arrow.BinaryTypes.LargeString,
		&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}, arrow.FixedWidthTypes.Date32,
		&arrow.Decimal128Type{Precision: 12, Scale: 2}, arrow.PrimitiveTypes.Uint64)
	var got []string
	err := ReadParquet(context.Background(), path, nil, func(b *Batch) error {
		for i := range b.Len() {
			got = append(got, tell(b.Row(i, nil)))
		}
		return nil
	})
	want := []string{
		`time:"1969-12-31T23:59:59.999Z" int:"-1" int:"-1" int:"-1" int:"0" float:"0" string:"" string:"" time:"1970-01-01T00:00:00Z" float:"-0.35" int:"0" `,
		`time:"1970-01-01T00:00:00.001Z" int:"0" int:"0" int:"0" int:"1" float:"0.5" string:"x" string:"x" time:"1970-01-02T00:00:00Z" float:"0" int:"1" `,
		`time:"2001-05-16T08:00:00Z" int:"1" int:"1" int:"1" int:"2" float:"1" string:"xx" string:"xx" time:"1970-01-03T00:00:00Z" float:"0.35" int:"2" `,
	}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("rows are\n%s\nwant\n%s\n%v", strings.Join(got, "\n"), strings.Join(want, "\n"), err)
	}
}

// Columns of Arrow files that Parquet has not: Polars writes texts as views.
func TestRecordOfOtherTypes(t *testing.T) {
	r := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
		{Name: "text", Type: arrow.BinaryTypes.StringView, Nullable: true}, {Name: "half", Type: arrow.FixedWidthTypes.Float16},
		{Name: "day", Type: arrow.FixedWidthTypes.Date64}, {Name: "much", Type: arrow.PrimitiveTypes.Uint64},
	}, nil))
	r.Field(0).(*array.StringViewBuilder).AppendValues([]string{"a text of more than twelve bytes", ""}, []bool{true, false})
	r.Field(1).(*array.Float16Builder).AppendValues([]float16.Num{float16.New(1.5), float16.New(-2)}, nil)
	r.Field(2).(*array.Date64Builder).AppendValues([]arrow.Date64{86_400_000, 0}, nil)
	r.Field(3).(*array.Uint64Builder).AppendValues([]uint64{1, math.MaxInt64 + 1}, nil)
	record := r.NewRecord()
	for i, field := range record.Schema().Fields() {
		if KindOf(field.Type) == schemas.Null {
			t.Errorf("column %d, %s, is not read", i, field.Type)
		}
	}
	b, err := NewBatch(record, []int{0, 1, 2})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`string:"a text of more than twelve bytes" float:"1.5" time:"1970-01-02T00:00:00Z" `, `null:"" float:"-2" time:"1970-01-01T00:00:00Z" `}
	for i, w := range want {
		if got := tell(b.Row(i, nil)); got != w {
			t.Errorf("row %d is %s, want %s", i, got, w)
		}
	}
	if _, err := NewBatch(record, []int{3}); failure.Of(err) != failure.BadRequest || !strings.Contains(err.Error(), "much") {
		t.Errorf("a number beyond int64: %v", err)
	}
}

func TestReadParquetRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.parquet")
	nothing := func(*Batch) error { return nil }
	if err := ReadParquet(context.Background(), path, nil, nothing); failure.Of(err) != failure.NotFound {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("PAR1 and then not PAR1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ReadParquet(context.Background(), path, nil, nothing); failure.Of(err) != failure.Corrupt {
		t.Errorf("no Parquet: %v", err)
	}
	if err := ReadParquet(context.Background(), sample, []string{"gate"}, nothing); failure.Of(err) != failure.NotFound {
		t.Errorf("no column: %v", err)
	}
	errEnough := errors.New("enough")
	if err := ReadParquet(context.Background(), sample, nil, func(*Batch) error { return errEnough }); !errors.Is(err, errEnough) {
		t.Errorf("stopped: %v", err)
	}
}

const sample = "../../examples/flights/data/flights.parquet"

// The numbers are DuckDB's, of the source file between the sample's days.
func TestReadSampleFlights(t *testing.T) {
	var rows, delay, distance, earliest, latest, before int64
	ordered, atlanta := true, 0
	err := ReadParquet(context.Background(), sample, []string{"date", "delay", "distance", "origin", "destination"}, func(b *Batch) error {
		for i := range b.Len() {
			at := b.Value(i, 0)
			if rows == 0 {
				earliest, before = at.Int(), at.Int()
			}
			ordered = ordered && at.Kind() == schemas.Time && before <= at.Int()
			before, latest = at.Int(), max(latest, at.Int())
			rows++
			delay += b.Value(i, 1).Int()
			distance += b.Value(i, 2).Int()
			if b.Value(i, 3).Str() == "ATL" || b.Value(i, 4).Str() == "ATL" {
				atlanta++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	type numbers struct{ rows, delay, distance, earliest, latest, atlanta int64 }
	got := numbers{rows, delay, distance, earliest, latest, int64(atlanta)}
	if want := (numbers{540_373, 1_163_366, 394_766_630, 987_984_060_000, 990_748_740_000, 44_588}); got != want || !ordered {
		t.Fatalf("sample is %+v (ordered: %v), want %+v", got, ordered, want)
	}
}
