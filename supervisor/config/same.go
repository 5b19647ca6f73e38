package config

import "reflect"

// Same reports whether two services say the same, wherever it was written.
func Same(a, b *Service) bool {
	return same(reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem())
}

// same is reflect.DeepEqual but for positions, and for templates, which are
// functions of files.
func same(a, b reflect.Value) bool {
	switch a.Type() {
	case reflect.TypeFor[Position](), reflect.TypeFor[Template]():
		return true
	}
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return same(a.Elem(), b.Elem())
	case reflect.Struct:
		for i := range a.NumField() {
			if a.Type().Field(i).IsExported() && !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		// What is not exported is compared as a whole where there is nothing else.
		return a.NumField() == 0 || a.Type().Field(0).IsExported() || a.Equal(b)
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		return reflect.DeepEqual(a.Interface(), b.Interface())
	case reflect.Func:
		return true
	default:
		return a.Equal(b)
	}
}
