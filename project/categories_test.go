package project

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/schemas"
)

const categoriesProject = `
project: flights
sources:
  departures: {schema: schemas/departure.avsc, key: flight_id, time: scheduled}
  arrivals: {schema: schemas/arrival.avsc, key: flight_id, time: arrived}
features:
  origins: {source: arrivals, entity: origin, features: {last_to: {aggregate: last(destination), windows: [lifetime]}}}
models:
  late:
    on: departures
    inputs:
      - distance
      - origin: {categories: [ATL, "a b", Zürich]}
      - haul: {expr: 'distance > 1000 ? "long" : "short"', categories: hauls.txt}
      - origins.last_to: {origin: destination, categories: [ORD, ATL]}
    label: {source: arrivals, join: flight_id, value: delay > 15, within: 24h}
`

func loadCategories(t *testing.T, hauls string) *Model {
	t.Helper()
	p, faults := load([]byte(categoriesProject), func(name string) ([]byte, error) {
		if name == "hauls.txt" {
			return []byte(hauls), nil
		}
		return readTestdata(name)
	}, "")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p.Models[0]
}

// Names stand in the list or in a file, and a text becomes its place among them: nothing, where it is not there.
func TestCategories(t *testing.T) {
	m := loadCategories(t, "short\r\nlong\r\n")
	if got := m.Inputs[2].Categories.Names(); !slices.Equal(got, []string{"short", "long"}) {
		t.Errorf("the file has %q", got)
	}
	for text, want := range map[string]schemas.Value{"ATL": schemas.IntValue(0), "a b": schemas.IntValue(1), "Zürich": schemas.IntValue(2), "atl": schemas.NullValue(), "": schemas.NullValue()} {
		if got := m.Inputs[1].Categories.Value(schemas.StringValue(text)); got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
	if last := m.Inputs[3]; last.Group == nil || !slices.Equal(last.Categories.Names(), []string{"ORD", "ATL"}) || m.On.Schema.Columns[last.Entity[0]].Name != "destination" {
		t.Errorf("the group's output is %+v", last)
	}
	if got := m.Inputs[1].Categories.Value(schemas.NullValue()); !got.IsNull() {
		t.Errorf("null is %v", got)
	}
	if got := m.Inputs[0].Categories.Value(schemas.IntValue(7)); got != schemas.IntValue(7) || m.Inputs[0].Categories.Names() != nil {
		t.Errorf("a number is %v", got)
	}
}

// A changed list is a changed model to plan, in the list's order and in its file, too.
func TestCategoriesArePlanned(t *testing.T) {
	a, b := loadCategories(t, "short\nlong\n").state().Inputs, loadCategories(t, "long\nshort\n").state().Inputs
	if a[1] != b[1] || a[2] == b[2] || !strings.Contains(a[1], "3 categories") || !strings.HasPrefix(a[2], "haul = ") || !strings.HasPrefix(a[3], "origins.last_to by destination in 2 categories ") {
		t.Errorf("%q\n%q", a, b)
	}
}
