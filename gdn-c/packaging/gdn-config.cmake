# find_package(gdn) gives gdn::gdn, the shared library, and gdn::gdn_static.
get_filename_component(_gdn_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

if(NOT TARGET gdn::gdn)
  add_library(gdn::gdn SHARED IMPORTED)
  set_target_properties(gdn::gdn PROPERTIES
    IMPORTED_LOCATION "${_gdn_prefix}/lib/libgdn.so.@ABI@"
    IMPORTED_SONAME "libgdn.so.@ABI@"
    INTERFACE_INCLUDE_DIRECTORIES "${_gdn_prefix}/include")

  add_library(gdn::gdn_static STATIC IMPORTED)
  set_target_properties(gdn::gdn_static PROPERTIES
    IMPORTED_LOCATION "${_gdn_prefix}/lib/libgdn.a"
    INTERFACE_LINK_LIBRARIES "gcc_s;pthread;dl;m"
    INTERFACE_INCLUDE_DIRECTORIES "${_gdn_prefix}/include")
endif()

unset(_gdn_prefix)
