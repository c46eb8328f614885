package dataset

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

const projectYAML = `project: shops
sources:
  payments:
    schema: payment.avsc
    format: json
    key: card
    time: at
features:
  cards:
    source: payments
    entity: card
    windows: [1h]
    features: {n: count(), total: sum(amount), place: last(place)}
  places:
    source: payments
    entity: place
    windows: [1h]
    features: {n: count()}
`

const paymentSchema = `{"type":"record","name":"payment","fields":[
	{"name":"card","type":"int"},
	{"name":"place","type":"string"},
	{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"stored","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null},
	{"name":"amount","type":"double"}]}`

// Payments of cards 7 and 8, not in order; the last of card 7 was stored two hours late.
const paymentsCSV = `card,place,at,stored,amount
7,ulm,2026-01-01T10:30:00Z,2026-01-01T10:30:00Z,5
7,bonn,2026-01-01T10:00:00Z,2026-01-01T10:00:01Z,3
8,ulm,2026-01-01T10:40:00Z,,2.5
7,ulm,2026-01-01T10:45:00Z,2026-01-01T12:45:00Z,100
`

// Rows in no order, one twice, one of a card never seen, one that names none; the text has what CSV must quote.
const spineCSV = `id,card,when,place,note
a,7,2026-01-01 10:50:00,ulm,"x, ""y"""
b,7,2026-01-01 10:30:00,bonn,
c,9,2026-01-01 10:50:00,kiel,z
d,,2026-01-01 10:50:00,ulm,z
a,7,2026-01-01 10:50:00,ulm,"x, ""y"""
e,8,2026-01-01 10:40:00.001,ulm,z
`

type fixture struct {
	dir string
	q   Request
}

// fixtureOf is a project with one record schema, and a request that lacks its rows.
func fixtureOf(t *testing.T, yaml, schemaFile, schema string) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir()}
	f.write(t, "millrace.yaml", yaml)
	f.write(t, schemaFile, schema)
	p, err := project.Load(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	limits := pit.Default()
	limits.TempDir = t.TempDir()
	f.q = Request{Project: p, OfflineDir: filepath.Join(f.dir, "offline"), Limits: limits, Out: filepath.Join(f.dir, "out.parquet")}
	return f
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := fixtureOf(t, projectYAML, "payment.avsc", paymentSchema)
	f.q.Spine = Spine{File: f.write(t, "spine.csv", spineCSV), Time: "when"}
	f.q.Events = map[string]string{"payments": f.write(t, "payments.csv", paymentsCSV)}
	return f
}

func (f *fixture) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (f *fixture) make(t *testing.T) *Manifest {
	t.Helper()
	m, err := Make(t.Context(), f.q, func(string, int64, int64) {})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// rows reads a file as text, a row a line.
func rows(t *testing.T, path string, columns ...string) []string {
	t.Helper()
	file, err := Open(t.Context(), path, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []string
	for record, err := range file.Records(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		for r := range int(record.NumRows()) {
			var line []string
			for _, name := range columns {
				at := record.Schema().FieldIndices(name)
				if len(at) != 1 {
					t.Fatalf("there are %d columns %s in %s", len(at), name, record.Schema())
				}
				line = append(line, record.Column(at[0]).ValueStr(r))
			}
			all = append(all, strings.Join(line, " "))
		}
	}
	return all
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOneRowOutForEachRowIn(t *testing.T) {
	f := newFixture(t)
	f.q.Status = true
	m := f.make(t)
	same(t, rows(t, f.q.Out, "id", "card", "note", "cards.n_1h", "cards.total_1h", "cards.place_1h", "cards.status", "places.n_1h", "places.status"),
		`a 7 x, "y" 3 108 ulm present 3 present`,
		`b 7 (null) 1 3 bonn present 1 present`,
		`c 9 z (null) (null) (null) not_found (null) not_found`,
		`d (null) z (null) (null) (null) not_found 3 present`,
		`a 7 x, "y" 3 108 ulm present 3 present`,
		`e 8 z 1 2.5 ulm present 2 present`)
	if m.Output.Rows != 6 || m.Spine.Rows != 6 || m.Groups[0].Without != 1 || m.Groups[1].Without != 0 || m.Events[0].Rows != 4 {
		t.Errorf("the manifest says %+v", m)
	}
	if m.Spine.First != "2026-01-01T10:30:00Z" || m.Groups[0].Version != f.q.Project.Groups[0].Version || m.Output.Column[0].Nulls != 2 {
		t.Errorf("the manifest says %+v", m)
	}
	var kept Manifest
	text, err := os.ReadFile(ManifestPath(f.q.Out))
	if err != nil || json.Unmarshal(text, &kept) != nil || fmt.Sprint(kept) != fmt.Sprint(*m) {
		t.Errorf("the manifest kept is %s, %v", text, err)
	}
	if digest, err := FileDigest(t.Context(), f.q.Out); err != nil || digest != m.Output.Digest {
		t.Errorf("the file's digest is %s, %v, the manifest has %s", digest, err, m.Output.Digest)
	}
	if again := f.make(t); again.Output.Digest != m.Output.Digest {
		t.Error("made again it is another file")
	}
	if left, _ := os.ReadDir(f.q.Limits.TempDir); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestEveryFormatIsRead(t *testing.T) {
	f := newFixture(t)
	f.make(t)
	columns := []string{"id", "cards.n_1h", "cards.total_1h", "cards.place_1h", "places.n_1h"}
	want := rows(t, f.q.Out, columns...)
	f.q.Out = filepath.Join(f.dir, "out.arrow")
	f.make(t)
	same(t, rows(t, f.q.Out, columns...), want...)
	for _, name := range []string{"out.parquet", "out.arrow"} { // what was made is a spine itself
		f.q.Spine.File, f.q.Out = filepath.Join(f.dir, name), filepath.Join(f.dir, "again.parquet")
		f.q.Features = []string{"again=cards.n_1h", "shops=places.*"}
		f.make(t)
		got := rows(t, f.q.Out, "id", "cards.n_1h", "again.n_1h", "shops.n_1h", "places.n_1h")
		for _, line := range got {
			x := strings.Fields(line)
			if x[1] != x[2] || x[3] != x[4] {
				t.Errorf("%s: %s", name, line)
			}
		}
		if len(got) != 6 {
			t.Errorf("%s: %d rows", name, len(got))
		}
	}
}

func TestWhatWasNotKnownDoesNotCount(t *testing.T) {
	f := newFixture(t)
	f.q.Features = []string{"cards.n_1h"}
	f.q.Known = map[string]Known{"payments": {Column: "stored"}}
	f.make(t) // the payment stored at 12:45 is not known at 10:50
	same(t, rows(t, f.q.Out, "id", "cards.n_1h"), "a 2", "b 1", "c (null)", "d (null)", "a 2", "e 1")
	f.q.Known = map[string]Known{"payments": {After: 20 * time.Minute}}
	f.make(t) // at 10:50 what happened before 10:30 is known
	same(t, rows(t, f.q.Out, "id", "cards.n_1h"), "a 1", "b 1", "c (null)", "d (null)", "a 1", "e (null)")
	f.q.Known = map[string]Known{"payments": {After: 20*time.Minute - time.Millisecond}}
	f.make(t) // and a millisecond sooner what happened at 10:30, too
	same(t, rows(t, f.q.Out, "id", "cards.n_1h"), "a 2", "b 1", "c (null)", "d (null)", "a 2", "e (null)")
}

func TestTheOfflineLogIsReadAndIsASpine(t *testing.T) {
	f := newFixture(t)
	s := f.q.Project.Sources[0]
	table, err := offline.EventsTable(f.q.OfflineDir, s.Name, s.Schema)
	if err != nil {
		t.Fatal(err)
	}
	w, err := table.NewWriter(0, offline.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC).UnixMilli()
	for i := range int64(4) {
		at := start + i*600_000
		row := schemas.Row{schemas.IntValue(7), schemas.StringValue("ulm"), schemas.TimeValue(at), schemas.NullValue(), schemas.FloatValue(1)}
		if err := w.Append(row, at, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(4); err != nil {
		t.Fatal(err)
	}
	f.q.Events, f.q.Spine = nil, Spine{Source: "payments", From: start + 600_000}
	m := f.make(t)
	same(t, rows(t, f.q.Out, "card", "cards.n_1h"), "7 1", "7 2", "7 3")
	f.q.Known = map[string]Known{"payments": {Column: "stored", After: 15 * time.Minute}}
	f.make(t)
	same(t, rows(t, f.q.Out, "card", "cards.n_1h"), "7 (null)", "7 1", "7 2")
	if err := w.Commit(5); err != nil {
		t.Fatal(err)
	}
	f.q.Known = nil
	if again := f.make(t); again.Events[0].Digest != m.Events[0].Digest {
		t.Error("a commit without rows makes another log")
	}
}

func TestNoRows(t *testing.T) {
	f := newFixture(t)
	f.q.Spine.File = f.write(t, "empty.csv", "id,card,when,place\n")
	if m := f.make(t); m.Output.Rows != 0 || len(rows(t, f.q.Out, "id", "cards.n_1h")) != 0 {
		t.Errorf("%d rows come of none", m.Output.Rows)
	}
}

func TestFaultsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testing.T, *fixture)
		want   string
	}{
		"an entity of another kind": {func(t *testing.T, f *fixture) { f.q.Entities = map[string]string{"card": "id"}; f.arrow(t) },
			"id: the column is utf8, but card of cards is int"},
		"no entity column":       {func(_ *testing.T, f *fixture) { f.q.Entities = map[string]string{"cards.card": "crad"} }, `crad: the spine has no such column, which is to be card of cards (did you mean "card"?`},
		"no time column":         {func(_ *testing.T, f *fixture) { f.q.Spine.Time = "wen" }, `wen: the spine has no such column`},
		"a time that is none":    {func(t *testing.T, f *fixture) { f.q.Spine.Time = "note"; f.arrow(t) }, "note: the column is utf8, but the time of a row is time"},
		"a text that is no time": {func(_ *testing.T, f *fixture) { f.q.Spine.Time = "note" }, `line 2: "x, \"y\"" is no time`},
		"a row without a time": {func(t *testing.T, f *fixture) { f.q.Spine.File = f.write(t, "s.csv", "id,card,when,place\na,7,,ulm\n") },
			"when: row 0 has no time"},
		"a column twice":          {func(t *testing.T, f *fixture) { f.q.Spine.File = f.write(t, "s.csv", "cards.n_1h,card,when,place\n") }, "cards.n_1h: the spine has a column of this name"},
		"an unknown feature":      {func(_ *testing.T, f *fixture) { f.q.Features = []string{"cards.nn_1h"} }, `cards has no feature "nn_1h" (did you mean "n_1h"?)`},
		"an unknown group":        {func(_ *testing.T, f *fixture) { f.q.Features = []string{"card.*"} }, `there is no "card.*"`},
		"an unknown entity":       {func(_ *testing.T, f *fixture) { f.q.Entities = map[string]string{"shop": "place"} }, `entity column "shop"`},
		"no events":               {func(_ *testing.T, f *fixture) { f.q.Events = nil }, "payments: there are no events in the offline log"},
		"events without a column": {func(t *testing.T, f *fixture) { f.q.Events["payments"] = f.write(t, "e.csv", "card,place,at\n") }, "amount: the events of payments have no such column"},
		"events of another kind": {func(t *testing.T, f *fixture) {
			f.q.Events["payments"] = f.write(t, "e.csv", "card,place,at,amount\n7,ulm,2026-01-01,much\n")
		}, `amount: ` + "FILE" + ` line 2: "much" is no float`},
		"a source that is not read": {func(_ *testing.T, f *fixture) { f.q.Known = map[string]Known{"refunds": {}} }, `no feature wanted comes of a source "refunds"`},
		"a format":                  {func(_ *testing.T, f *fixture) { f.q.Out = "x.xlsx" }, "x.xlsx: the format to write is not known"},
		"a broken file":             {func(t *testing.T, f *fixture) { f.q.Spine.File = f.write(t, "s.parquet", "PAR1 but not really PAR1") }, "s.parquet: "},
		"no file":                   {func(_ *testing.T, f *fixture) { f.q.Spine.File = "none.parquet" }, "none.parquet: there is no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			c.change(t, f)
			_, err := Make(t.Context(), f.q, func(string, int64, int64) {})
			want := strings.ReplaceAll(c.want, "FILE", filepath.Join(f.dir, "e.csv"))
			if err == nil || !strings.Contains(err.Error(), want) || failure.Of(err) == failure.Internal {
				t.Errorf("error is %v (%s), want one with %q", err, failure.Of(err), want)
			}
			if left, _ := filepath.Glob(filepath.Join(f.dir, "*out*")); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

// arrow makes the spine an Arrow file, whose columns have types of their own.
func (f *fixture) arrow(t *testing.T) {
	t.Helper()
	c, err := newConverter(t.TempDir(), []string{"id", "card", "when", "place", "note"}, []schemas.Kind{schemas.String, schemas.Int, schemas.Time, schemas.String, schemas.String})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range []schemas.Value{schemas.StringValue("a"), schemas.IntValue(7), schemas.TimeValue(0), schemas.StringValue("ulm"), schemas.NullValue()} {
		c.add(i, v)
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	if err := c.w.Close(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<20)
	n, _ := c.file.ReadAt(b, 0)
	f.q.Spine.File = f.write(t, "spine.arrow", string(b[:n]))
}

func TestAnEndedContextLeavesNothing(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Make(ctx, f.q, func(stage string, _, _ int64) {
		if stage == "events" {
			cancel()
		}
	})
	if err == nil {
		t.Error("it went on")
	}
	if left, _ := filepath.Glob(filepath.Join(f.dir, "*out*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// TestQuery runs on the PostgreSQL of MILLRACE_TEST_POSTGRES.
func TestQuery(t *testing.T) {
	dsn := os.Getenv("MILLRACE_TEST_POSTGRES")
	if dsn == "" {
		t.Skip("MILLRACE_TEST_POSTGRES is not set")
	}
	f := newFixture(t)
	f.q.Features = []string{"cards.n_1h"}
	f.q.Spine = Spine{Postgres: dsn, Time: "at", Query: `select * from (values
		(1::int2, 7::int8, '2026-01-01 10:50:00+00'::timestamptz, 1.5::numeric, 'x'::text, true, '6f2c8c5e-0d7e-4e4b-9f25-0a4bb0a8b0aa'::uuid, date '2026-01-02'),
		(2::int2, null, '2026-01-01 10:50:00+00'::timestamptz, null, null, null, null, null),
		(3::int2, 9::int8, '2026-01-01 10:50:00+00'::timestamptz, -2, '', false, null, null)) as t(id, card, at, price, text, yes, u, day)`}
	f.make(t)
	same(t, rows(t, f.q.Out, "id", "card", "price", "text", "yes", "u", "day", "cards.n_1h"),
		"1 7 1.5 x true 6f2c8c5e-0d7e-4e4b-9f25-0a4bb0a8b0aa 2026-01-02 00:00:00Z 3",
		"2 (null) (null) (null) (null) (null) (null) (null)",
		"3 9 -2  false (null) (null) (null)")
	for query, want := range map[string]string{
		"selec 1":                        "syntax error",
		"select 1 as card, '{}'::json j": "j: the column's type (OID 114) is not read here",
		"select 7::int8 as card, now() as at, 1/0 as x": "division by zero",
	} {
		f.q.Spine.Query = query
		if _, err := Make(t.Context(), f.q, func(string, int64, int64) {}); err == nil || !strings.Contains(err.Error(), want) || failure.Of(err) != failure.BadRequest {
			t.Errorf("%s: %v", query, err)
		}
	}
	f.q.Spine.Postgres = "postgres://127.0.0.1:1/none"
	if _, err := Make(t.Context(), f.q, func(string, int64, int64) {}); failure.Of(err) != failure.Unavailable {
		t.Errorf("error is %v", err)
	}
}

// What would make an event a dead letter names no entity, and so has no events: the row is there, without values.
func TestRowsThatCannotNameAnEntity(t *testing.T) {
	f := newFixture(t)
	long := strings.Repeat("x", features.MaxKey+1)
	f.q.Spine.File = f.write(t, "odd.csv", "id,card,when,place\na,7,2026-01-01 10:50:00,\nb,7,2026-01-01 10:50:00,"+long+"\nc,7,2026-01-01 10:50:00,ulm\n")
	m := f.make(t)
	if got, want := strings.Join(rows(t, f.q.Out, "id", "cards.n_1h", "places.n_1h"), "\n"), "a 3 (null)\nb 3 (null)\nc 3 3"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if m.Groups[1].Without != 2 {
		t.Errorf("%d rows name no place, want 2", m.Groups[1].Without)
	}
}
