package enrich

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
)

const airportSchema = `{"type": "record", "name": "airport", "fields": [
  {"name": "code", "type": "string"},
  {"name": "since", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "elevation", "type": ["null", "double"]},
  {"name": "hub", "type": "boolean"},
  {"name": "gates", "type": "long"}]}`

const eventSchema = `{"type": "record", "name": "e", "fields": [{"name": "id", "type": "string"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}`

// load makes a project with one table and these files, and loads it.
func load(t *testing.T, table string, files map[string]string, deps Deps) (*Loader, error) {
	t.Helper()
	dir := t.TempDir()
	files["airport.avsc"], files["e.avsc"] = airportSchema, eventSchema
	files[project.FileName] = "project: p\ntables: {airports: {schema: airport.avsc, key: code, " + table + "}}\nsources: {e: {schema: e.avsc, key: id, time: at}}\n"
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := project.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	deps.Project, deps.Clock, deps.Log, deps.Registerer = p, clock.System, slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	l, err := New(deps)
	if err != nil {
		t.Fatal(err)
	}
	return l, l.Load(t.Context())
}

// at is the elevation, whether it is a hub, and the gates of an airport at a time, as text.
func at(l *Loader, code string, when string) string {
	t, err := time.Parse(time.DateOnly, when)
	if err != nil {
		panic(err)
	}
	row, ok := l.Tables()["airports"].At(code, t.UnixMilli())
	if !ok {
		return "none"
	}
	return row[2].Text() + " " + row[3].Text() + " " + row[4].Text()
}

const airportsCSV = "\ufeffgates,code,nation,since,elevation,hub\n3,ATL,US,2001-01-01,313.5,true\n4,ATL,US,2002-01-01T00:00:00Z,,false\n1,\"L,X\",US,978307200000,38,0\n"

const airportsJSONL = `{"code": "ATL", "since": "2001-01-01T00:00:00Z", "elevation": 313.5, "hub": true, "gates": 3}

{"code": "ATL", "since": "2002-01-01T00:00:00Z", "elevation": null, "hub": false, "gates": 4}
{"code": "L,X", "since": 978307200000, "elevation": 38, "hub": false, "gates": 1}
`

// isAirports checks what every kind of table must say of the airports.
func isAirports(t *testing.T, l *Loader) {
	t.Helper()
	for _, c := range []struct{ code, when, want string }{
		{"ATL", "2000-12-31", "none"}, {"ATL", "2001-01-01", "313.5 true 3"}, {"ATL", "2001-12-31", "313.5 true 3"},
		{"ATL", "2002-01-01", " false 4"}, {"L,X", "2010-01-01", "38 false 1"}, {"JFK", "2010-01-01", "none"},
	} {
		if got := at(l, c.code, c.when); got != c.want {
			t.Errorf("%s at %s is %q, want %q", c.code, c.when, got, c.want)
		}
	}
}

func TestFiles(t *testing.T) {
	for name, text := range map[string]string{"airports.csv": airportsCSV, "airports.jsonl": airportsJSONL} {
		l, err := load(t, "valid_from: since, every: 1s, file: "+name, map[string]string{name: text}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		isAirports(t, l)

		// A file that changes takes the place of the table; one that cannot be read does not.
		path := filepath.Join(l.deps.Project.Dir, name)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		for _, step := range []struct{ text, want string }{
			{"what is this", " false 4"},
			{strings.NewReplacer(",false\n", ",true\n", `"hub": false, "gates": 4`, `"hub": true, "gates": 4`).Replace(text), " true 4"},
		} {
			if err := os.WriteFile(path, []byte(step.text), 0o644); err != nil {
				t.Fatal(err)
			}
			awaitRow(t, 10*time.Second, func() string { return at(l, "ATL", "2003-01-01") }, step.want)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestParquet(t *testing.T) {
	l, err := load(t, "valid_from: since, file: airports.csv", map[string]string{"airports.csv": airportsCSV}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	// What a table of Millrace's own exports is a Parquet file like any other.
	schema := l.deps.Project.Tables[0].Schema
	events, err := offline.EventsTable(t.TempDir(), "x", schema)
	if err != nil {
		t.Fatal(err)
	}
	w, err := events.NewWriter(0, offline.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range []schemas.Row{
		{schemas.StringValue("ATL"), schemas.TimeValue(978307200000), schemas.FloatValue(313.5), schemas.BoolValue(true), schemas.IntValue(3)},
		{schemas.StringValue("ATL"), schemas.TimeValue(1009843200000), schemas.NullValue(), schemas.BoolValue(false), schemas.IntValue(4)},
		{schemas.StringValue("L,X"), schemas.TimeValue(978307200000), schemas.FloatValue(38), schemas.BoolValue(false), schemas.IntValue(1)},
	} {
		if err := w.Append(row, 1, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(3); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.parquet")
	if err := offline.ExportParquet(t.Context(), events, offline.ScanOptions{}, path); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = load(t, "valid_from: since, file: airports.parquet", map[string]string{"airports.parquet": string(content)}, Deps{}); err != nil {
		t.Fatal(err)
	}
	isAirports(t, l)
}

func TestFilesThatCannotBeLoaded(t *testing.T) {
	for _, c := range []struct {
		table, text, want string
		kind              failure.Kind
	}{
		{"file: airports.csv", "", "reading the line of column names", failure.BadProject},
		{"file: airports.csv", "code,since,hub\n", `no column "gates"`, failure.BadProject},
		{"file: airports.csv", airportsCSV + "x,JFK,US,2001-01-01,1,true\n", `airports.csv:5: gates is "x", not int`, failure.BadProject},
		{"file: airports.csv", airportsCSV + ",JFK,US,2001-01-01,1,true\n", "airports.csv:5: gates is empty", failure.BadProject},
		{"file: airports.csv", airportsCSV + "1,JFK\n", "wrong number of fields", failure.BadProject},
		{"file: airports.csv, max_rows: 2, valid_from: since", airportsCSV, "more than max_rows = 2", failure.Refused},
	} {
		_, err := load(t, c.table, map[string]string{"airports.csv": c.text}, Deps{})
		if failure.Of(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v (%v), want %s", c.table, err, failure.Of(err), c.want)
		}
	}
	if _, err := load(t, "file: airports.csv", map[string]string{}, Deps{}); failure.Of(err) != failure.NotFound {
		t.Errorf("a file that is not there: %v", err)
	}
}

// awaitRow waits for a looked up row to become what it must be.
func awaitRow(t *testing.T, patience time.Duration, row func() string, want string) {
	t.Helper()
	give, look := time.After(patience), time.NewTicker(5*time.Millisecond)
	defer look.Stop()
	for row() != want {
		select {
		case <-give:
			t.Fatalf("it is %q, want %q", row(), want)
		case <-look.C:
		}
	}
}

// kafka is a broker with a topic of its own.
func kafka(t *testing.T) (streams.Config, *kgo.Client, string) {
	t.Helper()
	addr := os.Getenv("MILLRACE_TEST_KAFKA")
	if addr == "" {
		b, err := broker.Start("", 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		addr = b.Addr()
	}
	cfg := streams.Config{Brokers: []string{addr}, Compression: "none"}
	client, err := streams.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	topic := fmt.Sprintf("airports-%d", rand.Uint32())
	if err := streams.EnsureTopics(t.Context(), client, []schemas.Topic{{Name: topic, Partitions: 3, Compact: true}}); err != nil {
		t.Fatal(err)
	}
	return cfg, client, topic
}

func TestTopic(t *testing.T) {
	cfg, client, topic := kafka(t)
	send := func(code, day, value string) {
		when, err := time.Parse(time.DateOnly, day)
		if err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Topic: topic, Key: []byte(code), Value: []byte(value), Timestamp: when}
		if value == "" {
			r.Value = nil
		}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	airport := func(code, gates string) string {
		return `{"code": "` + code + `", "since": 0, "elevation": null, "hub": false, "gates": ` + gates + `}`
	}
	for _, day := range []string{"2001-01-01", "2001-02-01"} {
		send("ATL", day, airport("ATL", day[6:7]))
	}
	send("LAX", "2001-01-01", airport("LAX", "7"))
	send("LAX", "2001-03-01", "")
	send("JFK", "2001-01-01", "no json")
	l, err := load(t, "format: json, topic: "+topic, map[string]string{}, Deps{Kafka: cfg})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ code, when, want string }{
		{"ATL", "2000-01-01", "none"}, {"ATL", "2001-01-15", " false 1"}, {"ATL", "2001-02-01", " false 2"},
		{"LAX", "2001-02-28", " false 7"}, {"LAX", "2001-03-01", "none"}, {"JFK", "2001-03-01", "none"},
	} {
		if got := at(l, c.code, c.when); got != c.want {
			t.Errorf("%s at %s is %q, want %q", c.code, c.when, got, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	send("ATL", "2001-04-01", airport("ATL", "9"))
	awaitRow(t, 10*time.Second, func() string { return at(l, "ATL", "2001-05-01") }, " false 9")
	if got := at(l, "ATL", "2001-03-31"); got != " false 2" {
		t.Errorf("what holds from later on changed what held before: %q", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestPostgres needs a server: MILLRACE_TEST_POSTGRES is its URL. Without one, what is tested is that its absence is told.
func TestPostgres(t *testing.T) {
	const query = `url_env: URL, every: 1s, valid_from: since, query: "select code, since, elevation, hub, gates, 'x' as more from airports"`
	url := os.Getenv("MILLRACE_TEST_POSTGRES")
	if url == "" {
		for env, kind := range map[string]failure.Kind{"": failure.BadProject, "postgres://u:secret@127.0.0.1:1/x": failure.Unavailable, "postgres://u:secret@:x:/": failure.Unavailable} {
			_, err := load(t, query, map[string]string{}, Deps{Getenv: func(string) string { return env }})
			if failure.Of(err) != kind || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: %v", env, err)
			}
		}
		return
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	run := func(sql string) {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	run(`drop table if exists airports`)
	run(`create table airports (code text, since timestamptz, elevation double precision, hub boolean, gates integer)`)
	run(`insert into airports values ('ATL', '2001-01-01Z', 313.5, true, 3), ('ATL', '2002-01-01Z', null, false, 4), ('L,X', '2001-01-01Z', 38, false, 1)`)
	deps := Deps{Getenv: func(string) string { return url }}
	l, err := load(t, query, map[string]string{}, deps)
	if err != nil {
		t.Fatal(err)
	}
	isAirports(t, l)
	for wrong, want := range map[string]string{
		"select code, since, elevation, hub from airports":                       `no column "gates"`,
		"select code, since, elevation, hub, gates::text as gates from airports": "column gates of the query: gates is string, not int",
		"select nonsense":                  "nonsense",
		"delete from airports returning *": "read-only",
		"select code, since, elevation, hub, case when gates > 1 then gates end as gates from airports": "is null, but not nullable",
	} {
		if _, err := load(t, `url_env: URL, query: "`+wrong+`"`, map[string]string{}, deps); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", wrong, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	run(`insert into airports values ('ATL', '2003-01-01Z', 1, true, 5)`)
	awaitRow(t, 20*time.Second, func() string { return at(l, "ATL", "2003-01-01") }, "1 true 5")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
