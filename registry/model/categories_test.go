package model

import (
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

// TestCategoryNames scores rows of texts with models that pandas categories were given to: LightGBM's names stand behind its text, XGBoost's in the
// model. What the libraries say of the rows comes from zoo/names.py.
func TestCategoryNames(t *testing.T) {
	for file, rows := range map[string]string{"lightgbm.txt": "lightgbm.csv", "xgboost.json": "xgboost.csv", "xgboost.ubj": "xgboost.csv"} {
		t.Run(file, func(t *testing.T) {
			m := loadNamed(t, file)
			names := CategoryNames(m)
			if want := [][]string{{"AA", "B6", "UA", "Ünder"}, nil, {"short", "long"}}; !reflect.DeepEqual(names, want) {
				t.Fatalf("the names are %q, want %q", names, want)
			}
			f, err := os.Open("testdata/names/" + rows)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			records, err := csv.NewReader(f).ReadAll()
			if err != nil || len(records) < 50 {
				t.Fatalf("%d rows, %v", len(records), err)
			}
			different := map[float64]bool{}
			for _, record := range records[1:] {
				row := make([]float64, 3)
				for i, text := range record[:3] {
					row[i] = math.NaN()
					if code := slices.Index(names[i], text); names[i] != nil && code >= 0 {
						row[i] = float64(code)
					} else if names[i] == nil {
						row[i] = floatOf(t, text)
					}
				}
				got, want := m.Predict(row), floatOf(t, record[3])
				if math.Abs(got-want) > 1e-6 {
					t.Fatalf("%v scores %v, not %v", record, got, want)
				}
				different[got] = true
			}
			if len(different) < 10 {
				t.Errorf("%d different scores", len(different))
			}
		})
	}
}

func floatOf(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func loadNamed(t *testing.T, file string) Model {
	t.Helper()
	b := readNamed(t, file)
	mediaType, err := Detect(b)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(mediaType, b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readNamed(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/names/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A file whose names cannot be matched to columns is refused, one that is damaged is corrupt, and lists that are no names are none.
func TestCategoryNamesRefused(t *testing.T) {
	text, tree := string(readNamed(t, "lightgbm.txt")), string(readNamed(t, "xgboost.json"))
	const columns, lists = "[categorical_feature: 0,2]", `pandas_categorical:[["AA", "B6", "UA", "\u00dcnder"], ["short", "long"]]`
	const offsets = `"offsets":[0,2,4,6,12]`
	for _, c := range []struct {
		of, old, with string
		kind          failure.Kind
		says          string
	}{
		{text, columns, "[categorical_feature: 0]", failure.Refused, "does not say which"},
		{text, columns, "[categorical_feature: ]", failure.Refused, "does not say which"},
		{text, columns, "[categorical_feature: 0,9]", failure.Corrupt, "are no columns"},
		{text, columns, "[categorical_feature: 0,0]", failure.Corrupt, "are no columns"},
		{text, lists, `pandas_categorical:[["AA"`, failure.Corrupt, "no list"},
		{text, lists, `pandas_categorical:[[1, 2, 3, 4], [5, "long"]]`, 0, ""},
		{text, lists, `pandas_categorical:null`, 0, ""},
		{tree, offsets, `"offsets":[0,2,4,6,99]`, failure.Corrupt, "is no text"},
		{tree, offsets, `"offsets":[0,2,4,3,12]`, failure.Corrupt, "is no text"},
		{tree, offsets, `"offsets":[0,2,4,7,12]`, failure.Corrupt, "is no text"},
		{tree, offsets, `"offsets":[0,2,4,6,12],"more":1`, failure.Refused, "more"},
		{tree, offsets, `"type":5,"offsets":[]`, 0, ""},
	} {
		if !strings.Contains(c.of, c.old) {
			t.Fatalf("the file has no %s", c.old)
		}
		b := []byte(strings.Replace(c.of, c.old, c.with, 1))
		mediaType, err := Detect(b)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Load(mediaType, b)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", c.with, err)
		case c.says == "" && CategoryNames(m)[0] != nil:
			t.Errorf("%s gives the names %q", c.with, CategoryNames(m))
		case c.says != "" && (err == nil || failure.Of(err) != c.kind || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v, want %v saying %q", c.with, err, c.kind, c.says)
		}
	}
}

// A signature takes the order of the model's file, of names that are declared.
func TestTakeCategories(t *testing.T) {
	m := loadNamed(t, "lightgbm.txt")
	declared := []SignatureInput{{Name: "carrier", Categories: []string{"Ünder", "DL", "UA", "AA", "B6"}}, {Name: "distance"}, {Name: "haul"}}
	signature, err := TakeCategories(declared, m)
	if err != nil || fmt.Sprint(signature[0].Categories) != "[AA B6 UA Ünder]" || signature[2].Categories != nil || len(declared[0].Categories) != 5 {
		t.Errorf("%v %v", signature, err)
	}
	if err := SameCategories(declared, m); failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), "carrier") {
		t.Errorf("other names: %v", err)
	}
	if err := SameCategories(signature, m); err != nil {
		t.Error(err)
	}
	declared[0].Categories = declared[0].Categories[:4]
	if _, err := TakeCategories(declared, m); failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), `"B6"`) {
		t.Errorf("a name that is not declared: %v", err)
	}
	golden := [][]float64{{1, 50, 0}, {3, 10, math.NaN()}}
	bundle, err := PackBundle(signature, MediaLightGBM, readNamed(t, "lightgbm.txt"), nil, golden)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Encode()
	if err != nil || !strings.Contains(string(b), bundleFormat3) {
		t.Fatalf("%v %s", err, b[:60])
	}
	again, err := DecodeBundle(b)
	if err != nil || !reflect.DeepEqual(again.Signature, signature) {
		t.Errorf("%v %v", again.Signature, err)
	}
}
