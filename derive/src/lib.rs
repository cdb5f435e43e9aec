//! `#[derive(Tree)]` for [lazuli](https://docs.rs/lazuli): a struct of tensors as a tree of tensors.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use std::collections::BTreeSet;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, GenericParam, Generics, Result, Type, parse_quote};

/// Makes a struct a tree of tensors: `lazuli::tree::Tree`, and `IntoTree` for passing it by value.
///
/// Each field must be a tree itself, or be marked `#[tree(static)]`: then it belongs to the structure, must be
/// `Clone + Debug + Eq + Hash + Send + Sync + 'static`, and another value of it makes another program. Static fields of
/// type `f32` and `f64` are compared by their bits.
#[proc_macro_derive(Tree, attributes(tree))]
pub fn derive_tree(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let fields = match &input.data {
        Data::Struct(data) => &data.fields,
        Data::Enum(data) => {
            return Err(Error::new(
                data.enum_token.span(),
                "a tree is a struct: put the variants' tensors into fields, `Option` for those that may be missing, or \
                 mark an enum without tensors `#[tree(static)]` in the struct that holds it",
            ));
        }
        Data::Union(data) => return Err(Error::new(data.union_token.span(), "a union cannot be a tree of tensors")),
    };
    if let Some(attribute) = input.attrs.iter().find(|a| a.path().is_ident("tree")) {
        return Err(Error::new(attribute.span(), "`#[tree(..)]` belongs on a field"));
    }
    let fields: Vec<Parsed> = fields.iter().enumerate().map(|(i, f)| parse_field(i, f)).collect::<Result<_>>()?;
    let generics = bound(&input.generics, &fields);
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let name = &input.ident;
    let label = name.to_string();
    let count = fields.len();
    let flatten = fields.iter().map(Parsed::flatten);
    let unflatten = fields.iter().map(Parsed::unflatten);
    let members = fields.iter().map(|f| &f.member);
    let locals = fields.iter().map(|f| &f.local);
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::lazuli::tree::Tree for #name #type_generics #where_clause {
            fn flatten_into(self, parts: &mut ::lazuli::tree::Flatten) {
                parts.open(#label, #count);
                #(#flatten)*
            }

            fn unflatten_from(parts: &mut ::lazuli::tree::Unflatten<'_>) -> ::lazuli::Result<Self> {
                parts.open(#label, #count)?;
                #(#unflatten)*
                ::core::result::Result::Ok(#name { #(#members: #locals),* })
            }
        }

        #[automatically_derived]
        impl #impl_generics ::lazuli::tree::IntoTree<#name #type_generics> for #name #type_generics #where_clause {
            fn into_tree(self) -> Self {
                self
            }
        }
    })
}

/// A field, and what becomes of it.
struct Parsed<'a> {
    member: syn::Member,
    local: syn::Ident,
    label: String,
    ty: &'a Type,
    is_static: bool,
}

fn parse_field(index: usize, field: &Field) -> Result<Parsed<'_>> {
    let mut is_static = false;
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("tree")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("static") {
                is_static = true;
                return Ok(());
            }
            Err(meta.error("the one attribute is `#[tree(static)]`: a field that belongs to the structure"))
        })?;
    }
    let member = match &field.ident {
        Some(name) => syn::Member::Named(name.clone()),
        None => syn::Member::Unnamed(index.into()),
    };
    let label = match &field.ident {
        Some(name) => name.to_string().trim_start_matches("r#").to_owned(),
        None => index.to_string(),
    };
    Ok(Parsed { member, local: format_ident!("field_{index}"), label, ty: &field.ty, is_static })
}

impl Parsed<'_> {
    fn flatten(&self) -> TokenStream {
        let (member, label, ty) = (&self.member, &self.label, self.ty);
        let value = match (self.is_static, self.float()) {
            (false, _) => {
                quote_spanned! { ty.span() => <#ty as ::lazuli::tree::Tree>::flatten_into(self.#member, parts); }
            }
            (true, None) => quote_spanned! { ty.span() => parts.constant(self.#member); },
            (true, Some(bits)) => quote! { parts.constant(::lazuli::tree::#bits(self.#member)); },
        };
        quote! { parts.field(#label); #value }
    }

    fn unflatten(&self) -> TokenStream {
        let (local, label, ty) = (&self.local, &self.label, self.ty);
        let value = match (self.is_static, self.float()) {
            (false, _) => quote_spanned! { ty.span() => <#ty as ::lazuli::tree::Tree>::unflatten_from(parts)? },
            (true, None) => quote_spanned! { ty.span() => parts.constant::<#ty>()? },
            (true, Some(bits)) => quote! { parts.constant::<::lazuli::tree::#bits>()?.0 },
        };
        quote! { parts.field(#label)?; let #local = #value; }
    }

    /// The wrapper that compares a float by its bits.
    fn float(&self) -> Option<syn::Ident> {
        let Type::Path(path) = self.ty else { return None };
        let name = ["f32", "f64"].into_iter().position(|f| path.path.is_ident(f))?;
        Some(format_ident!("{}", ["Float32", "Float64"][name]))
    }
}

/// The generics with bounds on type parameters: trees, or static values where only static fields mention them.
fn bound(generics: &Generics, fields: &[Parsed<'_>]) -> Generics {
    let mut bounded = generics.clone();
    let mut in_trees = BTreeSet::new();
    let mut in_statics = BTreeSet::new();
    for field in fields {
        let set = if field.is_static { &mut in_statics } else { &mut in_trees };
        let ty = field.ty;
        mentions(quote!(#ty), set);
    }
    for parameter in &mut bounded.params {
        let GenericParam::Type(parameter) = parameter else { continue };
        let name = parameter.ident.to_string();
        if in_trees.contains(&name) {
            parameter.bounds.push(parse_quote!(::lazuli::tree::Tree));
        }
        if in_statics.contains(&name) {
            parameter.bounds.push(parse_quote!(::lazuli::tree::StaticValue));
            parameter.bounds.push(parse_quote!(::core::clone::Clone));
            parameter.bounds.push(parse_quote!(::core::fmt::Debug));
            parameter.bounds.push(parse_quote!(::core::cmp::Eq));
            parameter.bounds.push(parse_quote!(::core::hash::Hash));
        }
        parameter.default = None;
    }
    bounded
}

/// Every identifier that a type mentions.
fn mentions(tokens: TokenStream, into: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            proc_macro2::TokenTree::Ident(name) => {
                into.insert(name.to_string());
            }
            proc_macro2::TokenTree::Group(group) => mentions(group.stream(), into),
            proc_macro2::TokenTree::Punct(_) | proc_macro2::TokenTree::Literal(_) => {}
        }
    }
}
