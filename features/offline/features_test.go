package offline

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

const arrivalSchema = `{"type": "record", "name": "arrival", "fields": [
  {"name": "arrived", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "origin", "type": "string"}, {"name": "destination", "type": "string"},
  {"name": "delay", "type": ["null", "int"]},
  {"name": "plane", "type": {"type": "record", "name": "plane", "fields": [{"name": "weight", "type": "double"}]}}]}`

func arrival(t *testing.T) *schemas.Schema {
	t.Helper()
	s, err := schemas.Parse("arrival", []byte(arrivalSchema))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEventsTableHasTheSchemasColumns(t *testing.T) {
	root := t.TempDir()
	table, err := EventsTable(root, "arrivals", arrival(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []Column{{"arrived", schemas.Time}, {"origin", schemas.String}, {"destination", schemas.String}, {"delay", schemas.Int},
		{"plane.weight", schemas.Float}}
	if table.Dir() != filepath.Join(root, "events", "arrivals") || !slices.Equal(table.Columns(), want) {
		t.Fatalf("table %s has %v", table.Dir(), table.Columns())
	}
}

// What the engine reads of an entity is what comes back from its table.
func TestFeaturesTableHoldsWhatWasRead(t *testing.T) {
	g, faults := features.Compile(features.Definition{
		Name: "routes", Source: "arrivals", Entity: []string{"origin", "destination"}, Windows: []string{"1h", "lifetime"},
		Features: []features.FeatureDefinition{{Name: "flights", Aggregate: "count()"}, {Name: "delay_mean", Aggregate: "mean(delay)"},
			{Name: "last_to", Aggregate: "last(destination)"}, {Name: "places", Aggregate: "top_k(destination, 3)"}},
	}, arrival(t))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	row := schemas.Row{schemas.TimeValue(monday), schemas.StringValue("ATL"), schemas.StringValue("LAX"), schemas.IntValue(12),
		schemas.FloatValue(70)}
	key, err := g.Key(row)
	if err != nil {
		t.Fatal(err)
	}
	e := g.NewEntity()
	if _, err := g.Add(e, row, monday, 0); err != nil {
		t.Fatal(err)
	}

	root := t.TempDir()
	table, err := FeaturesTable(root, g)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(root, "features", "routes@"+g.Version); table.Dir() != want {
		t.Fatalf("the folder is %s, want %s", table.Dir(), want)
	}
	w := takeOver(t, table, 0, WriterOptions{})
	later := monday + 1000
	read := FeatureRow(g, key, g.Read(e, later, nil), nil)
	none := FeatureRow(g, "JFK"+keySeparator+"", g.Read(nil, later, nil), nil)
	if err := errors.Join(w.Append(read, later, 0), w.Append(none, later, 1), w.Commit(2)); err != nil {
		t.Fatal(err)
	}
	got := map[string][]schemas.Value{}
	names := []string{"origin", "destination", "flights_1h", "delay_mean_1h", "last_to", "places_1h"}
	err = table.Scan(context.Background(), ScanOptions{Columns: names}, func(b *Batch) error {
		for i := range b.Len() {
			for c, name := range names {
				got[name] = append(got[name], b.Value(i, c))
			}
		}
		return nil
	})
	want := map[string][]schemas.Value{
		"origin":      {schemas.StringValue("ATL"), schemas.StringValue("JFK")},
		"destination": {schemas.StringValue("LAX"), schemas.StringValue("")},
		"flights_1h":  {schemas.IntValue(1), schemas.NullValue()}, "delay_mean_1h": {schemas.FloatValue(12), schemas.NullValue()},
		"last_to":   {schemas.StringValue("LAX"), schemas.NullValue()},
		"places_1h": {schemas.StringValue(`[{"value":"LAX","count":1}]`), schemas.NullValue()},
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range want {
		if !slices.Equal(got[name], values) {
			t.Errorf("%s is %v, want %v", name, got[name], values)
		}
	}
}
