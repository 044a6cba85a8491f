package mls

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// ComponentData is what one component has in a dictionary or a SafeAAD.
type ComponentData struct {
	ID   ComponentID
	Data []byte
}

// An AppDataDictionary is the app_data_dictionary extension of a KeyPackage,
// LeafNode, GroupContext or GroupInfo (section 3.7). It is strictly sorted.
//
//	struct {
//	    ComponentID component_id;
//	    opaque data<V>;
//	} ComponentData;
//
//	struct {
//	    ComponentData component_data<V>;
//	} AppDataDictionary;
type AppDataDictionary []ComponentData

// NewAppDataDictionary sorts entries, of which there may be one for each
// component.
func NewAppDataDictionary(entries ...ComponentData) (AppDataDictionary, error) {
	d, twice := sortComponents(entries)
	if twice != nil {
		return nil, broken(RuleDictionary, "component 0x%04x appears twice", uint16(twice.ID))
	}
	return d, nil
}

// sortComponents returns a sorted copy, and an entry whose component has two.
func sortComponents(entries []ComponentData) (sorted []ComponentData, twice *ComponentData) {
	sorted = slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b ComponentData) int { return cmp.Compare(a.ID, b.ID) })
	for i := 1; i < len(sorted); i++ {
		if sorted[i-1].ID == sorted[i].ID {
			return nil, &sorted[i]
		}
	}
	return sorted, nil
}

func (d AppDataDictionary) search(id ComponentID) (int, bool) {
	return slices.BinarySearchFunc(d, id, func(e ComponentData, id ComponentID) int { return cmp.Compare(e.ID, id) })
}

// Find returns a component's data, and whether it is there.
func (d AppDataDictionary) Find(id ComponentID) ([]byte, bool) {
	if i, ok := d.search(id); ok {
		return d[i].Data, true
	}
	return nil, false
}

// With returns a copy in which a component has the given data.
func (d AppDataDictionary) With(id ComponentID, data []byte) AppDataDictionary {
	d = slices.Clone(d)
	i, ok := d.search(id)
	if !ok {
		return slices.Insert(d, i, ComponentData{id, data})
	}
	d[i].Data = data
	return d
}

// Without returns a copy that lacks a component.
func (d AppDataDictionary) Without(id ComponentID) AppDataDictionary {
	return slices.DeleteFunc(slices.Clone(d), func(e ComponentData) bool { return e.ID == id })
}

// Extension encodes the dictionary as an extension.
func (d AppDataDictionary) Extension() Extension {
	b := tlsvec.NewBuilder(4 + d.size())
	d.marshal(b)
	return Extension{ExtensionAppDataDictionary, b.Bytes()}
}

// size is the length of the vector without its header.
func (d AppDataDictionary) size() (n int) {
	for i := range d {
		n += 2 + vectorSize(d[i].Data)
	}
	return n
}

func (d *AppDataDictionary) marshal(b *tlsvec.Builder)  { writeComponents(b, *d) }
func (d *AppDataDictionary) unmarshal(r *tlsvec.Reader) { *d = readComponents(r) }

func writeComponents(b *tlsvec.Builder, entries []ComponentData) {
	b.Raw(tlsvec.AppendLength(nil, AppDataDictionary(entries).size()))
	for _, e := range entries {
		b.Uint16(uint16(e.ID))
		b.Vector(e.Data)
	}
}

// readComponents reads entries that must be strictly sorted.
func readComponents(r *tlsvec.Reader) []ComponentData {
	entries := []ComponentData{}
	last := -1
	r.Each(func(r *tlsvec.Reader) {
		e := ComponentData{ComponentID(r.Uint16()), r.Vector()}
		if int(e.ID) <= last && r.Err() == nil {
			r.Fail(fmt.Sprintf("component 0x%04x is not in strictly increasing order", uint16(e.ID)))
		}
		last = int(e.ID)
		entries = append(entries, e)
	})
	return entries
}

// AppData decodes the app_data_dictionary extension, or returns nil if it is
// absent.
func (e Extensions) AppData() (AppDataDictionary, error) {
	data, ok := e.Find(ExtensionAppDataDictionary)
	if !ok {
		return nil, nil
	}
	var d AppDataDictionary
	if err := decode("app_data_dictionary", data, &d); err != nil {
		return nil, brokenBy(RuleDictionary, err, "app_data_dictionary")
	}
	return d, nil
}

// withAppData sets the dictionary.
func (e Extensions) withAppData(d AppDataDictionary) Extensions {
	x := d.Extension()
	return e.With(x.Type, x.Data)
}

// sameAppData reports whether two lists hold the same dictionary, or none.
func (e Extensions) sameAppData(other Extensions) bool {
	a, hasA := e.Find(ExtensionAppDataDictionary)
	b, hasB := other.Find(ExtensionAppDataDictionary)
	return hasA == hasB && bytes.Equal(a, b)
}
