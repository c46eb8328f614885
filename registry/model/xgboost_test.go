package model

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

const zooBinary = "testdata/zoo/xgboost-3.4-binary.json"

// TestXGBoostText changes one thing at a time in a whole model.
func TestXGBoostText(t *testing.T) {
	whole := string(readFile(t, zooBinary))
	set := func(path string, value any) func(string) string {
		return func(text string) string {
			var tree map[string]any
			if err := json.Unmarshal([]byte(text), &tree); err != nil {
				t.Fatal(err)
			}
			at, keys := any(tree), strings.Split(path, ".")
			for _, k := range keys[:len(keys)-1] {
				if list, ok := at.([]any); ok {
					at = list[0]
				} else {
					at = at.(map[string]any)[k]
				}
			}
			if at.(map[string]any)[keys[len(keys)-1]] = value; value == nil {
				delete(at.(map[string]any), keys[len(keys)-1])
			}
			b, err := json.Marshal(tree)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
	}
	const booster, param, tree = "learner.gradient_booster.", "learner.learner_model_param.", "learner.gradient_booster.model.trees.0."
	for _, c := range []struct {
		name   string
		change func(string) string
		kind   failure.Kind
		says   string
	}{
		{"version before", set("version", []int{1, 6, 2}), failure.Refused, "[1 6 2]"},
		{"version to come", set("version", []int{4, 0, 0}), failure.Refused, "[4 0 0]"},
		{"no version", set("version", nil), failure.Refused, "version"},
		{"booster", set(booster+"name", "gbforest"), failure.Refused, `"gbforest"`},
		{"objective", set("learner.objective.name", "reg:magic"), failure.Refused, `"reg:magic"`},
		{"objective's parameter", set("learner.objective.magic_param", 1), failure.Refused, `"magic_param"`},
		{"field at the top", set("magic", 1), failure.Refused, `"magic"`},
		{"field of the learner", set("learner.magic", 1), failure.Refused, `"magic"`},
		{"field of the booster", set(booster+"magic", 1), failure.Refused, `"magic"`},
		{"field of a tree", set(tree+"magic", 1), failure.Refused, `"magic"`},
		{"vector leaves", set(tree+"tree_param.size_leaf_vector", "3"), failure.Refused, "vectors"},
		{"targets", set(param+"num_target", "2"), failure.Refused, "num_target"},
		{"base score of nothing", set(param+"base_score", "x"), failure.Corrupt, "base_score"},
		{"base score of no probability", set(param+"base_score", "[2E0]"), failure.Corrupt, "base_score"},
		{"base scores of two", set(param+"base_score", "[1E-1,2E-1]"), failure.Corrupt, "base_score"},
		{"inputs", set(param+"num_feature", "9"), failure.Corrupt, "feature_names"},
		{"many inputs", set(param+"num_feature", "2000000000"), failure.Corrupt, "num_feature"},
		{"no trees", set(booster+"model.trees", []int{}), failure.Refused, "before it was trained"},
		{"trees", set(booster+"model.gbtree_model_param.num_trees", "2"), failure.Corrupt, "num_trees"},
		{"outputs", set(booster+"model.tree_info", []int{0, 0, 0, 1}), failure.Corrupt, "output 1"},
		{"a short array", set(tree+"sum_hessian", []int{1}), failure.Corrupt, "arrays"},
		{"a child far away", set(tree+"left_children", []int{99, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}), failure.Corrupt, "99"},
		{"a cycle", set(tree+"left_children", []int{0, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}), failure.Corrupt, "twice"},
		{"a category far away", set(tree+"categories_nodes", []int{0}), failure.Corrupt, "categories"},
		{"cut off", func(s string) string { return s[:len(s)-1] }, failure.Corrupt, ""},
		{"a number too large", func(s string) string { return strings.Replace(s, `"sum_hessian":[`, `"sum_hessian":[1e99,`, 1) }, failure.Corrupt, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := c.change(whole)
			if text == whole {
				t.Fatal("nothing was changed")
			}
			_, err := LoadXGBoostJSON([]byte(text))
			if err == nil || failure.Of(err) != c.kind || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want one of kind %v that says %q", err, c.kind, c.says)
			}
		})
	}
}

// TestXGBoostNonFinite reads what XGBoost writes and JSON lacks: NaN where a split is on categories, and Infinity.
func TestXGBoostNonFinite(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":[NaN,-Infinity,Infinity]}`: `{"a":["NaN","-Infinity","Infinity"]}`,
		`{"NaN \" I":"Infinity"}`:        `{"NaN \" I":"Infinity"}`,
		`[Nix, I]`:                       `[Nix, I]`,
	} {
		if got := string(quoteNonFinite([]byte(text))); got != want {
			t.Errorf("%s became %s, want %s", text, got, want)
		}
	}
	var f floats
	if err := json.Unmarshal([]byte(`[ "NaN", "-Infinity",1.5 ]`), &f); err != nil || f[0] == f[0] || !math.IsInf(float64(f[1]), -1) || f[2] != 1.5 {
		t.Errorf("%v (%v)", f, err)
	}
	whole := readFile(t, zooBinary)
	at := bytes.Index(whole, []byte(`"split_conditions":[`)) + len(`"split_conditions":[`)
	end := at + bytes.IndexByte(whole[at:], ',')
	damaged := bytes.Join([][]byte{whole[:at], whole[end:]}, []byte("NaN"))
	if _, err := LoadXGBoostJSON(damaged); failure.Of(err) != failure.Refused {
		t.Errorf("a numeric split at NaN: error %v", err)
	}
}

// TestXGBoostCategoriesBelowZero has what XGBoost 3.4 says of such codes: -0.5 is none, and not cut off to 0 as in LightGBM.
func TestXGBoostCategoriesBelowZero(t *testing.T) {
	m, err := LoadXGBoostJSON(readFile(t, "testdata/zoo/xgboost-3.4-categories.json"))
	if err != nil {
		t.Fatal(err)
	}
	row := split(numbers(t, "testdata/zoo/rows-60.f64"), 7)[5]
	for code, want := range map[float64]float64{-0.5: 0.48722175, -1: 0.48722175, 0: 0.2185371, 1: 0.1737284} {
		row[5], row[6] = code, code
		if got := m.Predict(row); math.Abs(got-want) > 1e-7 {
			t.Errorf("category %v: score %v, XGBoost says %v", code, got, want)
		}
	}
}

// TestXGBoostCertainBase has what XGBoost 3.1 and 3.4 say of models whose labels were almost all, or all, the same.
func TestXGBoostCertainBase(t *testing.T) {
	whole := readFile(t, zooBinary)
	row := split(numbers(t, "testdata/zoo/rows-60.f64"), 7)[5]
	for _, c := range []struct {
		version, base string
		margin        float64 // NaN: XGBoost refuses it
	}{
		{"[3,4,1]", "[1E0]", 12.464248657226562},
		{"[3,4,1]", "[0E0]", -15.096421241760254},
		{"[3,4,1]", "[1E-7]", -15.096421241760254},
		{"[3,2,0]", "[1E-7]", -15.096421241760254},
		{"[3,1,3]", "[1E-7]", -17.399005889892578},
		{"[3,1,3]", "[1E0]", math.NaN()},
	} {
		var file map[string]any
		if err := json.Unmarshal(whole, &file); err != nil {
			t.Fatal(err)
		}
		file["version"] = json.RawMessage(c.version)
		file["learner"].(map[string]any)["learner_model_param"].(map[string]any)["base_score"] = c.base
		text, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		m, err := LoadXGBoostJSON(text)
		if refused := c.margin != c.margin; refused || err != nil {
			if !refused || failure.Of(err) != failure.Corrupt {
				t.Errorf("%s of %s: %v", c.base, c.version, err)
			}
			continue
		}
		if got := m.Margin(row); got != c.margin {
			t.Errorf("%s of %s: margin %v, XGBoost says %v", c.base, c.version, got, c.margin)
		}
	}
}

// TestUBJSON compares with JSON written by hand.
func TestUBJSON(t *testing.T) {
	for in, want := range map[string]string{
		"{}":                      `{}`,
		"{U\x01aZi\x01bTi\x01cF}": `{"a":null,"b":true,"c":false}`,
		"[i\xffU\xffI\xff\x00l\xff\xff\xff\xfe" + "L\x00\x00\x00\x01\x00\x00\x00\x00]": `[-1,255,-256,-2,4294967296]`,
		"[$d#i\x02\x3f\xc0\x00\x00\x7f\xc0\x00\x00":                                    `[1.5,"NaN"]`,
		"[$i#L\x00\x00\x00\x00\x00\x00\x00\x03\x01\x02\x03":                            `[1,2,3]`,
		"[#i\x02Si\x01\"D\xff\xf0\x00\x00\x00\x00\x00\x00":                             `["\"","-Inf"]`,
		"{$U#i\x01i\x01k\x07": `{"k":7}`,
		"[[][{}]]":            `[[],[{}]]`,
		"[$l#i\x00":           `[]`,
	} {
		got, err := fromUBJSON([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%q became %s (%v), want %s", in, got, err, want)
		}
	}
	for name, in := range map[string]string{
		"nothing": "", "cut off": "[i", "a type unknown": "x", "a type of no bytes": "[$Z#l\x7f\xff\xff\xff", "a type and no count": "[$i\x01]",
		"a count below 0": "[#i\xff", "a count of a fraction": "[#d\x00\x00\x00\x00", "a count too large": "[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff",
		"a text too long": "Sl\x7f\xff\xff\xff", "a key cut off": "{i\x05ab", "more behind": "ZZ", "no end": "[[[", "too deep": strings.Repeat("[", 100) + strings.Repeat("]", 100),
	} {
		if got, err := fromUBJSON([]byte(in)); failure.Of(err) != failure.Corrupt || err == nil {
			t.Errorf("%s: %s (%v)", name, got, err)
		}
	}
}

// TestLoadersAllocateByTheInput gives each loader little that announces much.
func TestLoadersAllocateByTheInput(t *testing.T) {
	long := binary.BigEndian.AppendUint64([]byte("{L\x00\x00\x00\x00\x00\x00\x00\x07learner[$d#L"), 1<<40)
	for name, b := range map[string][]byte{
		"UBJSON":     long,
		"categories": bytes.Replace(readFile(t, "testdata/zoo/xgboost-3.4-categories.json"), []byte(`"categories":[`), []byte(`"categories":[16777215,`), -1),
		"LightGBM": []byte("tree\nversion=v4\nnum_class=1024\nnum_tree_per_iteration=1024\nmax_feature_idx=0\nobjective=multiclass\nfeature_names=a\n" +
			"tree_sizes=1\n\nTree=0\nnum_leaves=131072\nnum_cat=131072\n"),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		media, err := Detect(b)
		if err == nil {
			_, err = Load(media, b)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
			t.Errorf("%s: %d bytes allocated for %d (%v)", name, got, len(b), err)
		}
	}
}

func TestDetect(t *testing.T) {
	for in, want := range map[string]string{
		"tree\nversion=v4": MediaLightGBM, "\n{ \"learner\": {": MediaXGBoostJSON, `{"version":[3,`: MediaXGBoostJSON, "{L\x00\x00": MediaXGBoostUBJ, "{i\x07learner": MediaXGBoostUBJ,
		`{"format":"millrace-logistic/1"`: MediaLogistic, `{"format": "millrace-bundle/1"`: MediaBundle,
	} {
		if got, err := Detect([]byte(in)); err != nil || got != want {
			t.Errorf("%q is %q (%v), want %q", in, got, err, want)
		}
	}
	for in, says := range map[string]string{
		"": "no known format", "hello": "no known format", "binf\x00": "old binary format", "\x80\x04\x95": "pickle", "PK\x03\x04": "zip",
		`{"name":"tree"`: "dump_model", `{"format":"other"`: "no known format", "{": "no known format",
	} {
		if _, err := Detect([]byte(in)); failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v, want one that says %q", in, err, says)
		}
	}
}

// zooFiles are the small models with a file extension, for fuzzing to begin with.
func zooFiles(t testing.TB, extension string) (all [][]byte) {
	paths, err := filepath.Glob(filepath.Join("testdata", "zoo", "*."+extension))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no %s in the zoo (%v)", extension, err)
	}
	for _, p := range paths {
		if !strings.HasSuffix(p, ".meta.json") {
			all = append(all, readFile(t, p))
		}
	}
	return all
}

// scoreAny scores a row of odd numbers by every way there is.
func scoreAny(t *testing.T, m Model) {
	x := make([]float64, len(m.Inputs()))
	for i := range x {
		x[i] = someValues[i%len(someValues)]
	}
	one, many := make([]float64, len(m.Outputs())), make([]float64, 2*len(m.Outputs()))
	m.PredictInto(x, one)
	m.PredictRows([][]float64{x, x}, many)
	for i, v := range one {
		if w := many[len(one)+i]; v != w && !(v != v && w != w) {
			t.Fatalf("%v by itself, %v among others", v, w)
		}
	}
	m.Explain(x, len(one)-1, "", make([]float64, len(x)))
}

// FuzzLoadXGBoostJSON expects an error or a model that scores.
func FuzzLoadXGBoostJSON(f *testing.F) {
	for _, b := range zooFiles(f, "json") {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := LoadXGBoostJSON(b); err == nil {
			scoreAny(t, m)
		}
	})
}

// FuzzLoadXGBoostUBJ expects an error or a model that scores, and that what was read as UBJSON is JSON.
func FuzzLoadXGBoostUBJ(f *testing.F) {
	for _, b := range zooFiles(f, "ubj") {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if text, err := fromUBJSON(b); err == nil && !json.Valid(text) {
			t.Fatalf("%q is no JSON", text)
		}
		if m, err := LoadXGBoostUBJ(b); err == nil {
			scoreAny(t, m)
		}
	})
}
